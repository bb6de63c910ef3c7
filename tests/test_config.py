from dataclasses import is_dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from omegaconf import DictConfig, OmegaConf

from audioml.config import ConfigError, RunConfig, flatten, load_config, to_yaml

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def flatten_names(node, prefix=""):
    names = []
    for key in node:
        is_section = isinstance(node[key], DictConfig)
        names += flatten_names(node[key], f"{prefix}{key}.") if is_section else [prefix + key]
    return names


def test_default_yaml_equals_the_dataclass_defaults():
    default = next(path for path in CONFIGS if path.name == "default.yaml")
    assert load_config([default]) == RunConfig()
    assert flatten_names(OmegaConf.load(default)) == list(flatten(RunConfig()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    assert load_config([path]).data.name in path.stem or path.stem == "default"


def test_overrides_win_over_files_and_later_over_earlier(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("optim: {lr: 0.5}\ntrain: {epochs: 3}\n")
    config = load_config([file], ["optim.lr=1e-3", "optim.lr=2e-3"])
    assert (config.optim.lr, config.train.epochs) == (2e-3, 3)


def test_every_choice_can_be_written_in_yaml():
    """Words such as off and no are booleans in YAML, so they can't be choices."""
    for section in get_type_hints(RunConfig).values():
        for key, hint in get_type_hints(section).items() if is_dataclass(section) else ():
            for choice in get_args(hint) if get_origin(hint) is Literal else ():
                assert OmegaConf.create(f"{key}: {choice}")[key] == choice


def test_yaml_round_trip(tmp_path):
    config = load_config(
        overrides=["augment.noise.snr_db=[1,2]", "data.root=/a b/c", "optim.lr=1e-5"]
    )
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert load_config([file]) == config


def test_flatten_lists_every_key():
    flat = flatten(RunConfig())
    assert flat["augment.noise.snr_db"] == (15.0, 40.0)
    assert flat["resume"] is None
    assert not any(key.endswith("augment") for key in flat)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("frontend.n_mel=64", "did you mean frontend.n_mels"),
        ("optm.lr=1", "did you mean optim.lr"),
        ("lr=1", "did you mean optim.lr"),
        ("nothing_like_it=1", "unknown key nothing_like_it"),
        ("train.epochs=0", "train.epochs must be at least 1, got 0"),
        ("train.epochs=1.5", "train.epochs"),
        ("optim.lr=nan", "optim.lr must be in"),
        ("augment.noise.probability=1.5", "augment.noise.probability must be in 0..1"),
        ("augment.stretch.rate=[1.1,0.9]", "augment.stretch.rate must be [least, most]"),
        ("augment.stretch.rate=[0.9]", "augment.stretch.rate"),
        ("frontend.hop_length=4096", "frontend.hop_length must be in 1..2048, got 4096"),
        ("frontend.f_max=20000", "frontend.f_max <= audio.sample_rate / 2"),
        ("frontend.kind=torchaudo", "frontend.kind"),
        ("frontend.transform=cqt", "frontend.transform=cqt needs nnAudio, got frontend.kind=auto"),
        ("frontend.trainable=true", "set frontend.kind=nnaudio"),
        ("audio.eval_crops=0", "audio.eval_crops must be in 1..100, got 0"),
        ("audio.store=pined", "did you mean pinned?"),
        ("train=null", "train"),
        ("train.seed", "expected section.key=value"),
        ("audio.sample_rate=fast", "audio.sample_rate"),
    ],
)
def test_bad_override_is_refused_in_one_line(override, message):
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as error:
        load_config(overrides=[override])
    assert message in str(error.value)


CQT = ["frontend.kind=nnaudio", "frontend.transform=cqt", "frontend.f_min=40"]
TRAINABLE = ["frontend.kind=nnaudio", "frontend.trainable=true"]
FIXED = ["augment.pitch.probability=0", "augment.stretch.probability=0"]
UNMASKED = [*FIXED, "augment.mask.probability=0"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (CQT, "set augment.pitch.probability=0 augment.stretch.probability=0"),
        ([*CQT, FIXED[0]], "can't do stretch; set augment.stretch.probability=0"),
        ([*CQT, "augment.preset=four_variants"], "augment.preset=four_variants"),
        ([*CQT, *FIXED, "frontend.trainable=true"], "set augment.mask.probability=0"),
        ([*CQT, *FIXED, "frontend.f_min=0"], "set frontend.f_min"),
        ([*CQT, *FIXED, "frontend.bins_per_octave=12"], "raise frontend.bins_per_octave"),
        (TRAINABLE, f"set {' '.join(UNMASKED)}"),
        ([*TRAINABLE, *FIXED], "can't do mask; set augment.mask.probability=0"),
        ([*TRAINABLE, *UNMASKED, "augment.filter.probability=1"], "can't do filter; set"),
        ([*TRAINABLE, "augment.preset=four_variants"], "set augment.preset=ranges or"),
    ],
)
def test_what_a_front_end_can_not_do_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as error:
        load_config(overrides=overrides)
    assert message in str(error.value)


RESNET = ["model.name=resnet50", "model.channels=windows"]
WINDOWS = "frontend.windows=[551,1102,2048]"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (RESNET, "frontend.windows and model.channels=windows go together, got"),
        ([WINDOWS], "go together, got frontend.windows=[551, 1102, 2048] and model.channels=mono"),
        ([*RESNET, "frontend.windows=[551,1102]"], "frontend.windows must be three lengths"),
        ([*RESNET, "frontend.windows=[551,1102,4096]"], "frontend.windows must be in 1..2048"),
        ([*RESNET, WINDOWS, *TRAINABLE, *UNMASKED], "can't be had with frontend.trainable=true"),
        ([*RESNET, WINDOWS, *CQT, *FIXED], "can't be had with frontend.transform=cqt"),
        (["model.channels=deltas"], "model.channels=deltas is for alexnet, resnet50 and"),
        (["model.name=ast", "model.channels=repeated"], "got model.name=ast; set model.channels"),
        (["model.ast.heads=5"], "model.ast.dim must be a multiple of model.ast.heads (5), got 192"),
        (["model.ast.stride=17"], "model.ast.stride must be in 1..16, got 17"),
    ],
)
def test_what_a_model_can_not_see_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as error:
        load_config(overrides=overrides)
    assert message in str(error.value)


EXTRA = "augment.extra=[{name: Gain}]"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.class_weights=balanced", "together do it twice; set one of them to its default"),
        (EXTRA, "set augment.extra=[] or train.sampling=shuffled"),
    ],
)
def test_what_balanced_sampling_does_not_go_with_is_refused_in_one_line(override, message):
    load_config(overrides=[override])
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as error:
        load_config(overrides=[override, "train.sampling=balanced"])
    assert message in str(error.value)


@pytest.mark.parametrize("frontend", [CQT, TRAINABLE, [*CQT, "frontend.trainable=true"]])
@pytest.mark.parametrize("changes", [UNMASKED, ["augment.preset=none"]])
def test_front_ends_by_nnaudio_are_accepted(frontend, changes):
    assert load_config(overrides=[*frontend, *changes]).frontend.kind == "nnaudio"


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "train: [\n", "train: {epochs: 1, epochs: 2}\n", "train:\n\tepochs: 1\n"]
)
def test_bad_file_is_named(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config([file])


def test_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*No such file"):
        load_config([Path("nowhere.yaml")])
