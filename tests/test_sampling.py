import torch

from audioml.rng import clips_of
from audioml.sampling import draw_balanced, find_rarest


def one_hot(classes, n_classes):
    return torch.eye(n_classes, dtype=torch.bool)[torch.tensor(classes)]


def test_every_class_comes_equally_often():
    classes = [0] * 60 + [1] * 30 + [2] * 7 + [3] * 3
    has_class = one_hot(classes, 4)
    for epoch in range(20):
        drawn = clips_of(draw_balanced(0, epoch, torch.arange(100), *find_rarest(has_class)))
        counts = torch.bincount(torch.tensor(classes)[drawn], minlength=4)
        assert len(drawn) == 100
        assert (counts - 25).abs().max() <= 1
        for clip, number in enumerate(torch.bincount(drawn, minlength=100).tolist()):
            assert abs(number - 25 / classes.count(classes[clip])) < 1


def test_over_epochs_clips_of_a_class_come_equally_often():
    classes = [0] * 60 + [1] * 30 + [2] * 7 + [3] * 3
    drawn = [
        draw_balanced(0, e, torch.arange(100), *find_rarest(one_hot(classes, 4)))
        for e in range(400)
    ]
    counts = torch.bincount(clips_of(torch.cat(drawn)), minlength=100) / 400
    expected = torch.tensor([25 / classes.count(c) for c in classes])
    assert (counts - expected).abs().max() < 0.08  # a share over 400 epochs, to 3 deviations


def test_the_rarest_of_several_classes_decides():
    # 20 clips of a alone, 4 of a and b, 8 of none: weights 1/24, 1/4 and 1/8
    has_class = torch.zeros(32, 2, dtype=torch.bool)
    has_class[:24, 0] = has_class[20:24, 1] = True
    drawn = clips_of(draw_balanced(3, 1, torch.arange(32), *find_rarest(has_class)))
    total = 20 / 24 + 1 + 1
    for clips, weight in ((range(20), 20 / 24), (range(20, 24), 1), (range(24, 32), 1)):
        n = int(torch.isin(drawn, torch.tensor(clips)).sum())
        assert abs(n - 32 * weight / total) <= 1


def test_a_draw_depends_on_seed_and_epoch_alone_and_numbers_occurrences():
    clips, has_class = torch.tensor([3, 5, 8, 9]), one_hot([0, 0, 0, 1], 2)
    first = draw_balanced(0, 0, clips, *find_rarest(has_class))
    assert torch.equal(first, draw_balanced(0, 0, clips, *find_rarest(has_class)))
    others = [draw_balanced(0, epoch, clips, *find_rarest(has_class)) for epoch in range(1, 9)]
    assert any(not torch.equal(first, other) for other in others)
    assert first[-1] == 9 + (1 << 32)  # the one of its class comes twice
    assert first.unique().tolist() == first.tolist()


def test_balanced_classes_come_once_each():
    drawn = draw_balanced(0, 0, torch.arange(6), *find_rarest(one_hot([0, 1, 2, 0, 1, 2], 3)))
    assert drawn.tolist() == list(range(6))
