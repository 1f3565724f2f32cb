"""One call of `Trainer.fit`: resume, step, log, evaluate, save, stop."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from robot_rl.data.loader import BatchLoader
from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import CheckpointFolder, CheckpointTensors, load_checkpoint
from robot_rl.imitation.learner import Learner, LearnerSettings
from robot_rl.imitation.metrics import HeldOut, action_unit
from robot_rl.imitation.plots import plot_learning_curve
from robot_rl.imitation.progress import ProgressReport
from robot_rl.imitation.summary import Status, TrainSummary, write_json
from robot_rl.imitation.surroundings import InterruptFlag
from robot_rl.metrics import MetricWriter

if TYPE_CHECKING:
    from robot_rl.imitation.trainer import Trainer

logger = logging.getLogger(__name__)
Resume = Literal["auto", "previous", "never"]
HELD_OUT_SEED = 7919  # not the training seed, so that runs with different seeds are compared on the same noise
_SHOWN = ("train/loss", "val/action_error_normalised")


class TrainRun:
    """What a call of `Trainer.fit` has opened, and where it stands.

    Args:
        trainer: The settings.
        resume: As for `Trainer.fit`.
    """

    def __init__(self, trainer: Trainer, resume: Resume) -> None:
        self.t = t = trainer
        self.dir = Path(t.run_dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        cuda = t.device == "cuda" or (t.device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if cuda else "cpu" if t.device == "auto" else t.device)
        settings = LearnerSettings(**{f.name: getattr(t, f.name) for f in fields(LearnerSettings)})
        self.learner = Learner(t.model, settings, device=self.device, dump_dir=self.dir)
        self.loader = BatchLoader(t.train, t.batch_size, seed=t.seed)
        self.constants = t.constants()
        self.checkpoints = CheckpointFolder(self.dir / "checkpoints")
        self.metrics: dict[str, float] = {}
        self.best: dict[str, Any] = {"step": None, "metrics": {}}
        self._before_s = 0.0
        found = self._restore(resume)
        write_json(self.dir / "config.json", self.constants)
        self.held_out = None
        if t.val is not None:
            seed, unit = HELD_OUT_SEED, action_unit(t.train)
            self.held_out = HeldOut(t.val, unit, n_windows=t.val_windows, batch_size=t.batch_size, seed=seed)
        self.writer = MetricWriter(
            self.dir, tensorboard=t.tensorboard, resume_step=self.learner.step if found else None
        )
        self._began = self._logged = t.clock()
        self._logged_step = self.learner.step

    @property
    def seconds(self) -> float:
        """Training time over all resumes."""
        return self._before_s + self.t.clock() - self._began

    def loop(self, interrupt: InterruptFlag) -> Status:
        """Train, and say why it ended."""
        t, learner = self.t, self.learner
        status: Status | None = "finished" if learner.step >= t.steps else None
        with ProgressReport(t.steps, start=learner.step) as progress:
            while status is None:
                learner.update(next(self.loader))
                step = learner.step
                status = self._status(interrupt)
                improved = (step % t.eval_every == 0 or status in ("finished", "budget")) and self._evaluate()
                if step % t.log_every == 0 or status is not None:
                    self._log(progress)
                if improved or status is not None or step % t.checkpoint_every == 0:
                    self._save(best=improved)
                progress.advance(step)
        return status

    def summarise(self, status: Status) -> TrainSummary:
        """Write summary.json and the learning curve, and return the summary."""
        summary = TrainSummary(
            status=status,
            step=self.learner.step,
            seconds=self.seconds,
            metrics=dict(self.metrics),
            best_step=self.best["step"],
            best_metrics=dict(self.best["metrics"]),
            run_dir=self.dir,
            last=self.checkpoints.path / "last",
            best=None if self.best["step"] is None else self.checkpoints.path / "best",
        )
        write_json(self.dir / "summary.json", asdict(summary))
        plot_learning_curve(self.writer.path, self.dir / "learning_curve.png")
        return summary

    def close(self) -> None:
        """Stop the loader's thread and finish the metric files."""
        self.loader.close()
        self.writer.close()
        self.learner.model.eval()

    def _status(self, interrupt: InterruptFlag) -> Status | None:
        if self.learner.step >= self.t.steps:
            return "finished"
        if interrupt.raised:
            return "interrupted"
        over = self.t.max_minutes is not None and self.seconds >= 60.0 * self.t.max_minutes
        return "budget" if over else None

    def _log(self, progress: ProgressReport) -> None:
        now, step = self.t.clock(), self.learner.step
        rate = (step - self._logged_step) / max(1e-9, now - self._logged)
        values = {
            **self.learner.drain(),
            "train/epoch": float(self.loader.epoch),
            "train/steps_per_s": rate,
            "train/seconds": self.seconds,
        }
        self._logged, self._logged_step = now, step
        self.metrics |= values
        self.writer.write(step, values)
        progress.report(step, {name: self.metrics[name] for name in _SHOWN if name in self.metrics})

    def _evaluate(self) -> bool:
        """Evaluate the averaged weights; return whether they are the best so far."""
        if self.held_out is None:
            return False
        self.learner.check()
        before = self.t.clock()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            values = self.held_out.evaluate(self.learner.ema_model, device=self.device)
        took = self.t.clock() - before
        self._logged += took  # so that train/steps_per_s is of training alone
        step = self.learner.step
        self.metrics |= values
        self.writer.write(step, {**values, "val/seconds": took})
        best: float = self.best["metrics"].get(self.t.best_by, float("inf"))
        improved = values[self.t.best_by] < best
        if improved:
            self.best = {"step": step, "metrics": values}
        return improved

    def _save(self, *, best: bool) -> None:
        self.learner.check()
        self.learner.ema.sync()
        tensors = CheckpointTensors(self.learner.model, self.learner.ema.model, self.learner.optimizer_tensors())
        state = {
            **self.learner.state(),
            "seconds": self.seconds,
            "loader": self.loader.state_dict(),
            "metrics": self.metrics,
            "best": self.best,
            "config": self.constants,
        }
        self.checkpoints.save(tensors, state, best=best)

    def _restore(self, resume: Resume) -> bool:
        """Continue from a checkpoint if that was asked for and there is one; return whether it was so."""
        path = self.checkpoints.find("previous" if resume == "previous" else "last")
        if resume not in ("auto", "previous", "never"):
            raise ConfigError(f"`resume` must be 'auto', 'previous' or 'never', got {resume!r}")
        if resume == "never" and path is not None:
            raise ConfigError(f"{self.dir} already holds {path.name}; pass resume='auto' or another run_dir")
        if resume == "previous" and path is None:
            raise ConfigError(f"{self.dir} has no previous checkpoint to resume from; pass resume='auto'")
        if path is None:
            return False
        learner = self.learner
        state, tensors = load_checkpoint(
            path, model=learner.model, ema=learner.ema.model, expected_config=self.constants
        )
        learner.load_optimizer_tensors(tensors)
        learner.load_state(state)
        self.loader.load_state_dict(state["loader"])
        self._before_s, self.metrics, self.best = state["seconds"], state["metrics"], state["best"]
        if resume == "previous" and self.checkpoints.fall_back():
            self.best = {"step": None, "metrics": {}}
        logger.info("resuming from %s", path)
        return True
