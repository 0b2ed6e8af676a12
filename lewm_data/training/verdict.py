"""What a diagnosis means, how far to trust it, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from lewm_data.findings import Verdict
from lewm_data.notation import count_of
from lewm_data.training.diagnosis import MAX_SHOWN_BLINDNESS, Diagnosis, blindness_words

NEARLY_BLIND = 0.9
"""One-step error, as a share of repeating the last frame's, above which a model has hardly learned anything."""

DEAF_GAIN = 1.05
"""Actions from elsewhere must raise the error at least this many times; otherwise the model ignores its actions."""

GOOD_PLAN_RANK = 0.2
"""Mean rank of the recorded actions up to which a planner can use the model; chance is 0.5."""

FEW_STEPS = 500
FEW_EPISODES = 3
FEW_TRAIN_EPISODES = 10
"""A blind model that trained on fewer should get more. A guess: one run on 5 episodes of 160 steps ended at 1.79."""

_STILL_FALLING = 0.98
_OVERFITS = 1.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a verdict must know about a training run.

    Attributes:
        step: Optimizer steps so far.
        max_steps: Steps in all.
        max_epochs: Epochs in all; None if a number of steps ends the run.
        num_train_episodes: Episodes that train.
        frameskip: Steps from one kept frame to the next.
        sigreg_weight: The model's.
        data: Path or address of the data file.
        history: Step and blindness of each diagnosis so far, the latest last.
        command: Words of the command line that started the run; empty if it is unknown, or must not be shown.
    """

    step: int
    max_steps: int
    max_epochs: int | None
    num_train_episodes: int
    frameskip: int
    sigreg_weight: float
    data: str
    history: tuple[tuple[int, float], ...] = ()
    command: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether training is complete; always, if it has no end."""
        return self.step >= self.max_steps


class NextStep(NamedTuple):
    """A reason, and the command to type; empty if there is nothing to type."""

    why: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.why}: {self.command}" if self.command else f"{self.why}."


def judge(diagnosis: Diagnosis, *, is_over: bool = True) -> Verdict:
    """Says in one sentence what a model can do, from its errors at all steps ahead.

    Args:
        diagnosis: What was measured.
        is_over: Whether training is complete. Before that, a model that is blind may still come to see.
    """
    bad: Literal["fair", "bad"] = "bad" if is_over else "fair"
    so_far = "" if is_over else " so far"
    if diagnosis.is_collapsed:
        return Verdict(
            bad,
            f"Collapsed{so_far}: the encoder gives nearly the same latent for every frame (variance "
            f"{diagnosis.mean_variance:.2g} per dimension, where 1 is wanted; effective rank "
            f"{diagnosis.effective_rank:.1f} of {len(diagnosis.variances)}), so its errors mean nothing.",
        )
    if not math.isfinite(diagnosis.blindness):
        return Verdict("bad", "Unknown: no validation episode has a frame to predict.")
    shares, gains = diagnosis.error_shares(), diagnosis.gains()
    better = [ahead for ahead, share in enumerate(shares, 1) if share < 1]
    times = f"{diagnosis.blindness:.2f} times"
    if diagnosis.blindness > MAX_SHOWN_BLINDNESS:
        times = "more than twice"
    one_step = f"its one-step error is {times} that of repeating the last frame"
    rest = _other_measures(diagnosis)
    if not better and diagnosis.blindness < 1:
        share = f"{diagnosis.versus_mean:.2f} times that of predicting the mean"
        return Verdict(bad, f"Blind{so_far}: its one-step error is {share}, and further ahead it is no better; {rest}.")
    if not better:
        return Verdict(bad, f"Blind{so_far}: {one_step}, and further ahead it is no better; {rest}.")
    if not max(gains[ahead - 1] for ahead in better) >= DEAF_GAIN:
        but = "but it predicts as well with actions from elsewhere"
        return Verdict(bad, f"Deaf to actions{so_far}: {one_step}, {but}; {rest}.")
    if better[0] > 1:
        ahead = f"from {better[0]} frames ahead on, it beats both repeating and the mean"
        return Verdict("fair", f"Blind to the next frame: {one_step}; {ahead}; {rest}.")
    if diagnosis.blindness > NEARLY_BLIND:
        return Verdict("fair", f"Nearly blind: {one_step}; {rest}.")
    if diagnosis.mean_r2 <= 0:
        return Verdict("fair", f"It predicts something, but hardly the robot: {one_step}; {rest}.")
    if diagnosis.plan_rank > GOOD_PLAN_RANK:
        return Verdict("fair", f"It predicts, but not well enough to plan: {one_step}; {rest}.")
    last = next(ahead for ahead in better if ahead + 1 not in better)
    if last < sum(map(math.isfinite, shares)):
        limit = f"beyond {count_of(last, 'frame')} ahead, repeating or the mean is as good"
        return Verdict("fair", f"It predicts, but not far: {one_step}; {limit}; {rest}.")
    return Verdict("good", f"It predicts: {one_step}; {rest}.")


def cautions(diagnosis: Diagnosis, run: Run) -> tuple[str, ...]:
    """Says why the numbers may prove little, one sentence each."""
    found = []
    if run.step < FEW_STEPS:
        found.append(f"Caution: only {count_of(run.step, 'step')} so far. Most models need thousands.")
    if not run.is_over:  # batch norms lag behind the weights: 17 became 0.64 in `make demo`
        found.append(
            f"Caution: training is at {run.step / run.max_steps:.0%}. While the learning rate is high, errors look "
            "larger than at the end."
        )
    if diagnosis.num_episodes < FEW_EPISODES:
        found.append(
            f"Caution: validated on {count_of(diagnosis.num_episodes, 'episode')}, which may be easier or harder than "
            "others. Raise --data.val_fraction, or record more episodes."
        )
    return tuple(found)


def next_steps(diagnosis: Diagnosis, run: Run) -> tuple[NextStep, ...]:
    """Says what to do when training is done, most useful first; nothing before."""
    if not run.is_over:
        return ()
    assess = NextStep("See what the recording can teach", f"lewm-data assess {shlex.quote(run.data)}")
    steps = []
    end = {"--trainer.max_epochs": str(2 * run.max_epochs)} if run.max_epochs else {}
    train_on = {"--ckpt_path": "last"} | (end or {"--trainer.max_steps": str(2 * max(run.max_steps, FEW_STEPS))})
    short = _again(run, "Training was short, so train on", train_on)
    if diagnosis.is_collapsed:
        weight = {"--model.sigreg_weight": f"{2 * run.sigreg_weight:.2g}"}
        again = _again(run, "Start again with a stronger pull against collapse", weight)
        return (short if run.step < FEW_STEPS else again), assess
    blindness = [value for _, value in run.history]
    if len(blindness) > 1 and blindness[-1] > _OVERFITS * min(blindness):
        step, best = min(run.history, key=lambda entry: entry[1])
        better = f"It was better after {count_of(step, 'step')} (blindness {blindness_words(best)}), so it overfits"
        steps.append(NextStep(f"{better}. Record more than {count_of(run.num_train_episodes, 'training episode')}"))
    elif len(blindness) > 1 and blindness[-1] < _STILL_FALLING * blindness[-2]:
        fall = f"blindness {blindness_words(blindness[-2])}, then {blindness_words(blindness[-1])}"
        if blindness[-1] > MAX_SHOWN_BLINDNESS:
            fall = "blindness falls"
        steps.append(_again(run, f"It still gets better ({fall}), so train on", train_on))
    elif run.step < FEW_STEPS:
        steps.append(short)
    shares = diagnosis.error_shares()
    if shares and shares[0] > NEARLY_BLIND and any(share < NEARLY_BLIND for share in shares):
        skip = {"--data.frameskip": str(2 * run.frameskip)}
        steps.append(_again(run, "Neighboring frames look much alike, so start again", skip))
    level = judge(diagnosis).level
    is_advised = any("Record more" in step.why for step in steps)
    if level == "bad" and run.num_train_episodes < FEW_TRAIN_EPISODES and not is_advised:
        few = count_of(run.num_train_episodes, "episode")
        steps.append(NextStep(f"It trained on {few}, which are few. Record more"))
    if level != "good":
        steps.append(assess)
    elif not any(word.partition("=")[0] == "--export" for word in run.command):
        name = PurePosixPath(run.data.partition("?")[0]).stem or "exported"
        steps.append(_again(run, "Export it for a planner", {"--ckpt_path": "last", "--export": f"{name}-model"}))
    return tuple(steps)


def _again(run: Run, why: str, flags: Mapping[str, str]) -> NextStep:
    """The command of the run, with other flags; only the flags if the command is unknown."""
    added = " ".join(f"{name} {shlex.quote(value)}" for name, value in flags.items())
    if not run.command:
        return NextStep(f"{why}: add {added}")
    kept: list[str] = []
    is_value_dropped = False
    for word in run.command:
        name, equals, _ = word.partition("=")
        if name in flags:
            is_value_dropped = not equals
        elif not is_value_dropped:
            kept.append(word)
        else:
            is_value_dropped = False
    return NextStep(why, f"{shlex.join(kept)} {added}")


def _other_measures(diagnosis: Diagnosis) -> str:
    gain = f"{diagnosis.action_gain:.2f}"
    words = f"actions from elsewhere make that error {gain} times as large, "
    if gain == "1.00":
        words = "actions from elsewhere do not change that error, "
    if math.isfinite(diagnosis.plan_rank):
        words += f"the recorded actions rank at {diagnosis.plan_rank:.2f} among others (0 is first, 0.5 is chance), "
    words += f"the latents use {diagnosis.effective_rank:.1f} of {len(diagnosis.variances)} dimensions"
    if math.isfinite(diagnosis.mean_r2):
        can = "can" if diagnosis.mean_r2 > 0.5 else "can hardly" if diagnosis.mean_r2 > 0 else "cannot"
        words += f", and the state {can} be read from them (R2 {diagnosis.mean_r2:.2f})"
    elif not diagnosis.probe_r2:
        words += ", and the data has no state to read from them"
    return words
