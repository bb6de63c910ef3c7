import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from audioml.config import ConfigError, RunConfig
from audioml.search_space import DEFAULT_OVER, combinations, describe, read_space


def read(*words):
    return read_space(words, RunConfig())


def test_values_are_kept_as_they_are_written():
    assert read("optim.lr=1e-4, 5e-4", "optim.schedule=cosine,constant") == {
        "optim.lr": CategoricalDistribution(["1e-4", "5e-4"]),
        "optim.schedule": CategoricalDistribution(["cosine", "constant"]),
    }


def test_lists_may_be_values():
    space = read("augment.noise.snr_db=[5,10],[20,40]")
    assert space["augment.noise.snr_db"].choices == ("[5,10]", "[20,40]")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optim.lr=1e-5..1e-2", FloatDistribution(1e-5, 1e-2, log=True)),
        ("optim.lr=1e-3..1e-2", FloatDistribution(1e-3, 1e-2)),
        ("model.dropout=0..0.5", FloatDistribution(0, 0.5)),
        ("frontend.floor_db=-90..-60", FloatDistribution(-90, -60)),
        ("train.batch_size=8..64", IntDistribution(8, 64)),
        ("train.batch_size=8..128", IntDistribution(8, 128, log=True)),
    ],
)
def test_ranges_are_logarithmic_over_more_than_a_decade(word, expected):
    key, _, text = word.partition("=")
    assert read(word) == {key: expected}
    low, high = (float(end) for end in text.split(".."))
    assert [float(end) for end in describe(expected).split("..")] == [low, high]


def test_the_default_grid_is_the_original_projects():
    grid = combinations(read(*DEFAULT_OVER), RunConfig())
    assert [tuple(point.values()) for point in grid] == [
        (rate, size) for rate in ("1e-4", "5e-4", "1e-3") for size in ("32", "64")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lr="], "--over optim.lr=: expected KEY=V1,V2,... without empty values"),
        (["optim.lr"], "--over optim.lr=: expected KEY=V1,V2"),
        (["optim.lr=1e-3,,1e-2"], "without empty values"),
        (["optim.lrr=1"], "unknown key optim.lrr; did you mean optim.lr?"),
        (["optim.lr=fast"], "'optim.lr=fast': optim.lr: Value 'fast'"),
        (["optim.lr=0"], "optim.lr must be in"),
        (["optim.schedule=cosine,const"], "did you mean constant?"),
        (["optim.lr=1", "optim.lr=2"], "--over optim.lr: given twice"),
        (["optim.lr=1e-3,0.001"], "0.001 is there twice"),
        (["optim={lr: 1}"], "optim is a section"),
        (["splits.fold=1,2"], "--over splits.fold: can't be varied; trials on other clips"),
        (["data.seed=1,2"], "--over data.seed: can't be varied; every trial must hear the same"),
        (["run.dir=a,b"], "--over run.dir: can't be varied; every trial has a folder"),
        (["resume=a,b"], "--over resume: can't be varied; the same sweep command"),
        (["optim.lr=1e-2..1e-5"], "the lower end must come first"),
        (["train.batch_size=8.5..16"], "could not be converted to Integer"),
        (["train.compile=0..1"], "train.compile is not a number; list its values"),
        (["optim.lr=1e-2..1e9"], "optim.lr must be in"),
    ],
)
def test_what_cannot_be_varied_is_one_line(words, message):
    with pytest.raises(ConfigError) as error:
        read(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_grid_needs_values_that_go_together():
    with pytest.raises(ConfigError, match=r"optim.lr=1e-05..0.01: a grid needs values"):
        combinations(read("optim.lr=1e-5..1e-2"), RunConfig())
    space = read("frontend.f_min=100,2000", "frontend.f_max=1000,4000")
    with pytest.raises(ConfigError, match=r"got 2000 and 1000; set frontend.f_max"):
        combinations(space, RunConfig())
