"""What a process sees of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.training.batches import Share


@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (6, 7)])
def test_a_part_is_the_asked_images_channels_last_where_they_have_channels(shape):
    images, labels = torch.randn(*shape), torch.arange(6)
    share = Share(images, labels, batch=6)
    part, classes = share.part(np.array([4, 1]), torch.device("cpu"))
    assert torch.equal(part, images[[4, 1]])
    assert classes.tolist() == [4, 1]
    layout = torch.channels_last if images.ndim == 4 else torch.contiguous_format
    assert part.is_contiguous(memory_format=layout)
