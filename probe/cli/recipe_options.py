"""The fields of a recipe as options of a command, behind its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.training.flags import Field, recipe_fields


def with_recipe_fields(
    shown: Callable[..., None], command: Callable[..., None], without: Collection[str] = ()
) -> None:
    """Gives `shown` the help and the options of `command`, then one per field of a recipe but for
    `without`; typer reads them.
    """
    parameters = list(_parameters(command, without))
    shown.__doc__ = command.__doc__
    shown.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    shown.__annotations__ = {each.name: each.annotation for each in parameters}


def _parameters(
    command: Callable[..., None], without: Collection[str]
) -> Iterator[inspect.Parameter]:
    signature = inspect.signature(command, eval_str=True)
    yield from (each for each in signature.parameters.values() if each.name != "fields")
    for field in recipe_fields():
        if field.name not in without:
            yield inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=option_of(field),
            )


def option_of(field: Field) -> Any:
    """The annotation that typer reads."""
    if field.is_switch:
        no = f"--no-{field.flag[2:]}"
        return Annotated[bool | None, typer.Option(f"{field.flag}/{no}", help=field.help)]
    option = typer.Option(
        field.flag, metavar=field.metavar, parser=field_parser(field), help=field.help
    )
    return Annotated[str | None, option]


def field_parser(field: Field) -> Callable[[Any], Any]:
    """The parser of a field of the recipe, with the message that options give."""

    def parse(value: Any) -> Any:
        if value is None or not isinstance(value, str):
            return value
        if value.startswith("--") or not value.strip():
            raise opt.Refused(f"{field.flag} {value}: needs a value")
        try:
            return field.parse(value)
        except ValueError as error:
            raise opt.Refused(f"{field.flag} {value}: must be {error}") from None

    return parse
