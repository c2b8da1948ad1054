"""The images that models are compared on: those of the run, others, and their labels."""

from __future__ import annotations

import numpy as np
import torch

from probe.data import open_images
from probe.jobs.capturing.capture import capture
from probe.jobs.converting.convert import convert
from probe.jobs.converting.eval_data import run_images
from probe.models.loading.load import load_model
from support.captures import token_batches
from support.classifiers import VIT, Classifier, captured


def test_labels_of_batches_give_accuracy_before_and_after(tmp_path):
    module = Classifier()
    run = captured(module, tmp_path / "run")
    with torch.no_grad():
        labelled = [
            (batch, (module(batch).argmax(1) + (torch.arange(len(batch)) % 4 == 0)) % 3)
            for batch in token_batches()
        ]
    done = convert(run, "dyt", model=module, data=labelled)
    with torch.no_grad():
        right = torch.cat([module(x).argmax(1) == y for x, y in labelled]).double().mean().item()
    assert done.accuracy == 0.75
    assert done.score.accuracy == right
    assert done.table["accuracy"].notna().all()


def test_labels_of_other_classes_are_told_and_not_used(tmp_path):
    module = Classifier()
    run = captured(module, tmp_path / "run")
    done = convert(
        run,
        "dyt",
        model=module,
        data=[(batch, torch.full((len(batch),), 7)) for batch in token_batches()],
    )
    assert done.accuracy is None
    assert done.notes == ["no accuracy: the data has 8 classes and the model 3"]


def test_sub_folders_are_labels(vit_run, tmp_path):
    """Ten folders, as many as the model has classes; the image of folder n is right where the model
    says n. A broken one is left out.
    """
    source = open_images(None, 10)
    for index in range(10):
        (tmp_path / f"class{index}").mkdir()
        source.load(index).resize((32, 32)).save(tmp_path / f"class{index}" / "image.png")
    (tmp_path / "class2" / "broken.png").write_text("no image")
    done = convert(vit_run, "dyt", data=tmp_path, layers="norm")
    model = load_model(VIT)
    with torch.no_grad():
        said = [
            int(model.module(model.transform(source.load(i).resize((32, 32)))[None]).argmax())
            for i in range(10)
        ]
    assert done.accuracy == np.mean([said[i] == i for i in range(10)])
    assert done.data == str(tmp_path)
    assert done.notes == [
        "1 images could not be read, such as class2/broken.png (not an image, or of no format "
        "that can be read)"
    ]


def test_the_images_of_a_run_are_found_again(vit_run, tmp_path):
    source, said = run_images(vit_run)
    assert list(source.ids) == vit_run.manifest["data"]["images"]
    assert said == "bundled photographs, the images that the curves were fitted on"
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(6):
        open_images(None, 6).load(index).resize((40, 40)).save(photos / f"{index}.png")
    run = capture(VIT, photos, out=tmp_path / "run", num_images=4, samples=20, tail=20, seed=3)
    source, said = run_images(run)
    assert list(source.ids) == run.manifest["data"]["images"]
    assert said == f"{photos}, the images that the curves were fitted on"
    (photos / source.ids[0]).unlink()
    source, said = run_images(run, 5)
    assert source.description["kind"] == "bundled"
    assert len(source) == 5
    assert "the run's own images cannot be used" in said
