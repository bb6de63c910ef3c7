"""The trials of a sweep: drawn, shared between processes, taken up again after an interruption.

Everything is in ``study.db``, which Optuna writes. A grid is put into Optuna's queue as a whole,
and a queued trial goes to one process only; Optuna's GridSampler would give a point to two. What is
drawn is drawn under a lock, by a sampler seeded with the trial's number, so that an interrupted
sweep draws what an uninterrupted one would have drawn.

A process holds a file lock for the trial it runs, and the system frees it however the process ends.
A trial that is running without that lock was cut off: it goes back into the queue.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from audioml.runs import RunError
from audioml.search_space import Space

_LOCKS = ".locks"
_SQLITE = b"SQLite format 3\0"
_WAIT_S = 60  # for another process that writes


class Study:
    """The trials in a folder.

    Args:
        path: The folder; made if it is not there.
        settings: All that the sweep depends on; a folder with other settings is refused.
        space: What values are drawn from, by key.
        grid: Values to be queued, by key; empty if all are drawn.
        n_trials: How many trials there are to be in all.
        seed: Of what is drawn.
        pruner: Says when a trial is not worth going on with.

    Raises:
        RunError: If the folder holds anything else, or another sweep.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, str],
        *,
        space: Space,
        grid: Sequence[dict[str, str]],
        n_trials: int,
        seed: int,
        pruner: BasePruner,
    ) -> None:
        self.path, self.space, self.n_trials, self.seed = path, space, n_trials, seed
        _refuse_foreign(path)
        (path / _LOCKS).mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(path / _LOCKS / "study")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self.lock:
            self._storage = _open_storage(path / "study.db")
            self._study = optuna.create_study(
                storage=self._storage,
                study_name="sweep",
                direction="maximize",
                pruner=pruner,
                load_if_exists=True,
            )
            self._check_settings(settings)
            for point in grid:
                self._study.enqueue_trial(point, skip_if_exists=True)

    @contextmanager
    def take(self) -> Iterator[Trial | None]:
        """Take the next trial, and hold it until the end of the context.

        Yields:
            The trial, one that was cut off before a new one; None if there is none left.
        """
        with self.lock:
            trial = self._next()
            hold: AbstractContextManager[object]
            hold = nullcontext() if trial is None else self._hold(trial.number)
        with hold:
            yield trial

    def tell(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        """Write down how a trial ended."""
        self._study.tell(trial, value, state)

    def put_back(self, trial: Trial | FrozenTrial) -> None:
        """Queue a trial that did not end."""
        self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """List the trials, or those in some states, by number."""
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _next(self) -> Trial | None:
        for trial in self.trials(TrialState.RUNNING):
            if self._is_cut_off(trial.number):
                self.put_back(trial)
        number = len(self.trials())
        if number >= self.n_trials and not self.trials(TrialState.WAITING):
            return None
        seed = np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
        self._study.sampler = TPESampler(seed=int(seed))
        return self._study.ask({**self.space})

    def _hold(self, number: int) -> AbstractContextManager[object]:
        """Lock a trial; the system frees it when this process ends.

        Raises:
            Timeout: If another process holds it.
        """
        return FileLock(self.path / _LOCKS / f"{number:04d}").acquire(blocking=False)

    def _is_cut_off(self, number: int) -> bool:
        try:
            with self._hold(number):
                return True
        except Timeout:
            return False

    def _check_settings(self, settings: Mapping[str, str]) -> None:
        """Write the settings down, or refuse others than those written down."""
        known = self._study.user_attrs.get("settings")
        if known is None:
            self._study.set_user_attr("settings", dict(settings))
            return
        keys = [key for key in {**known, **settings} if known.get(key) != settings.get(key)]
        if keys:
            changes = [f"{key} {known.get(key)}, not {settings.get(key)}" for key in keys]
            raise RunError(
                f"{self.path}: holds a sweep with {'; '.join(changes)}; give the same settings "
                "to go on with it, or another --dir"
            )


def _open_storage(file: Path) -> RDBStorage:
    """Open the trials' database, made if it is not there.

    Raises:
        RunError: If it is damaged, or of a version of Optuna that this one can't read.
    """
    options = {"connect_args": {"timeout": _WAIT_S}}
    try:
        with closing(sqlite3.connect(file, timeout=_WAIT_S)) as database:
            (fault,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise sqlite3.DatabaseError(fault)
        return RDBStorage(f"sqlite:///{file}", engine_kwargs=options)
    except (sqlite3.DatabaseError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"{file}: damaged, or of another version of Optuna ({reason}); restore it, or set "
            "another --dir"
        ) from error


def _refuse_foreign(path: Path) -> None:
    """Refuse a folder that holds anything but a sweep."""
    database = path / "study.db"
    if database.is_file():
        with database.open("rb") as file:
            head = file.read(len(_SQLITE))
        is_foreign = bool(head) and head != _SQLITE
    else:
        is_foreign = path.exists() and (
            not path.is_dir() or any(entry.name != _LOCKS for entry in path.iterdir())
        )
    if is_foreign:
        raise RunError(f"{path}: already there, and not the folder of a sweep; set another --dir")
