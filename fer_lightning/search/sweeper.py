"""The sweeper of ``hydra/sweeper=optuna``: Hydra runs the jobs, Optuna chooses their settings.

The sweeper of the package hydra-optuna-sweeper needs Optuna 2; spaces and settings are spelled as there.
Imported before Hydra starts: nothing heavy at the top.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fer_lightning.core.errors import FERError
from fer_lightning.core.parallel import available_cores
from fer_lightning.runs.placement import jobs_at_once
from fer_lightning.runs.sweep import SEARCH_SWEEPER, current_sweep

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from fer_lightning.search.study import Direction, Reserved, Search

INSTALL = 'pip install "optuna>=4.2,<6"'  # the extra `search`


def register_sweeper() -> None:
    """Make the sweeper known to Hydra, which else takes plugins from the package ``hydra_plugins`` alone."""
    Plugins.instance().class_name_to_class[SEARCH_SWEEPER] = OptunaSweeper


class OptunaSweeper(Sweeper):
    """Runs trials until there are ``n_trials``, several at a time if the launcher runs several.

    Args:
        sampler: The node of a sampler of Optuna, such as ``{_target_: optuna.samplers.TPESampler, seed: 0}``.
        n_trials: Of the search, those of earlier and other processes included.
        n_jobs: Trials that are chosen together, before any of them has a result; None: as many as the
            launcher runs side by side.
        direction: ``maximize`` or ``minimize``; None follows ``monitor_mode``.
        max_failure_rate: The search ends once a larger share of its trials has failed, in [0, 1].
        params: Override keys -> spaces, such as ``optimizer.lr: tag(log,interval(1e-4,1e-2))``.
    """

    def __init__(
        self,
        sampler: DictConfig,
        n_trials: int,
        n_jobs: int | None,
        direction: "Direction | None",
        max_failure_rate: float,
        params: DictConfig,
    ) -> None:
        self._sampler_node = sampler
        self._num_trials = n_trials
        self._num_jobs = n_jobs
        self._direction = direction
        self._max_failure_rate = max_failure_rate
        self._params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives a sweeper, and make the launcher."""
        self.hydra_context: HydraContext = hydra_context
        self.config: DictConfig = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search.

        Args:
            arguments: The command's overrides.

        Raises:
            FERError: If a setting or a space is wrong, trials have no value, or too many fail.
            Exception: Of the first trial that failed, once all trials are through.
        """
        at_once = self._check()
        search = self._open(arguments)
        failure: Exception | None = None
        while batch := search.reserve(at_once, self._num_trials):
            if batch[0].again:
                numbers = ", ".join(str(trial.number) for trial in batch)
                print(f"going on with trial {numbers}, which a process left")  # noqa: T201 - the log is the jobs'
            jobs = [trial.overrides for trial in batch]
            self.validate_batch_is_legal(jobs)
            for trial, job in zip(
                batch, self.launcher.launch(jobs, initial_job_idx=batch[0].number), strict=True
            ):
                failure = failure or self._finish(search, trial, job)
            self._write_results(search)
            self._check_failures(search, failure)
        self._write_results(search)
        if failure is not None:
            raise failure

    def _check(self) -> int:
        """Check the settings; return how many trials are chosen together."""
        try:
            import optuna
        except ImportError as error:
            raise FERError(f"hydra/sweeper=optuna: Optuna is not installed; {INSTALL}") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for name, value in (("n_trials", self._num_trials), ("n_jobs", self._num_jobs)):
            if value is None and name == "n_jobs":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise FERError(f"hydra.sweeper.{name}={value}: expected a whole number from 1")
        rate = self._max_failure_rate
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate <= 1:
            raise FERError(f"hydra.sweeper.max_failure_rate={rate}: expected a number in [0, 1]")
        if self._direction not in (None, "maximize", "minimize"):
            raise FERError(f"hydra.sweeper.direction={self._direction}: expected maximize, minimize or null")
        return self._num_jobs or jobs_at_once(self.config.hydra, available_cores())

    def _open(self, arguments: Sequence[str]) -> "Search":
        from fer_lightning.search.space import read_space
        from fer_lightning.search.study import Search

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        params = [f"{key!s}={value}" for key, value in self._params.items()]
        space = read_space(parser.parse_overrides([*params, *arguments]))
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        sweep = current_sweep()
        assert sweep is not None
        assert sweep.worker is not None
        mode: dict[str, Direction] = {"max": "maximize", "min": "minimize"}
        return Search(
            folder,
            space,
            make_sampler=self._make_sampler,
            seed=int(self._sampler_node.get("seed") or 0),
            pruner=self._make_pruner(),
            direction=self._direction or mode[str(self.config.monitor_mode)],
            worker=sweep.worker.name,
            is_alive=sweep.worker.is_alive,
        )

    def _make_sampler(self, seed: int) -> "BaseSampler":
        from fer_lightning.config.instantiate import instantiate
        from fer_lightning.config.targets import ANY_TARGET

        node = OmegaConf.to_container(self._sampler_node, resolve=True)
        assert isinstance(node, dict)
        sampler: BaseSampler = instantiate(
            node | ({"seed": seed} if "seed" in node else {}), name="hydra.sweeper.sampler", trust=ANY_TARGET
        )
        return sampler

    def _make_pruner(self) -> "BasePruner | None":
        """Build the pruner of the trials' callback: TPE treats the brackets of Hyperband apart."""
        from fer_lightning.config.instantiate import instantiate
        from fer_lightning.config.targets import ANY_TARGET

        callbacks: Any = OmegaConf.to_container(self.config.callbacks, resolve=False) or {}
        if not isinstance(callbacks, Mapping) or not isinstance(callbacks.get("pruning"), Mapping):
            return None
        node = OmegaConf.to_container(self.config.callbacks.pruning.pruner, resolve=True)
        pruner: BasePruner = instantiate(node, name="callbacks.pruning.pruner", trust=ANY_TARGET)
        return pruner

    def _finish(self, search: "Search", trial: "Reserved", job: JobReturn) -> Exception | None:
        """Note a job's result in the study; return its error."""
        result = job._return_value
        if isinstance(result, Exception):
            search.finish(trial.number, " ".join(str(result).split()) or type(result).__name__)
            return result
        if isinstance(result, bool) or not isinstance(result, int | float):
            search.finish(trial.number, "no value")
            return FERError(
                f"trial {trial.number}: has no {self.config.monitor}, by which a search chooses, since "
                "there is no validation split; set data.val_fraction=0.1, or data.protocol=official"
            )
        search.finish(trial.number, float(result))
        return None

    def _check_failures(self, search: "Search", failure: Exception | None) -> None:
        states = [trial.state.name for trial in search.study.get_trials(deepcopy=False)]
        ended = [state for state in states if state not in ("RUNNING", "WAITING")]
        if failure is not None and ended.count("FAIL") > self._max_failure_rate * len(ended):
            raise FERError(
                f"{ended.count('FAIL')} of {len(ended)} trials failed, more than "
                f"hydra.sweeper.max_failure_rate={self._max_failure_rate} allows; the last: {failure}"
            ) from failure

    def _write_results(self, search: "Search") -> None:
        from fer_lightning.search.results import write_search

        write_search(search.study, Path(self.config.hydra.sweep.dir), monitor=str(self.config.monitor))
