"""What a diagnosis means, how far to trust it, and what to do next."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from lewm_data.findings import Verdict
from lewm_data.notation import count_of
from lewm_data.training.diagnosis import Diagnosis

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
    """

    step: int
    max_steps: int
    max_epochs: int | None
    num_train_episodes: int
    frameskip: int
    sigreg_weight: float
    data: str
    history: tuple[tuple[int, float], ...] = ()


def judge(diagnosis: Diagnosis) -> Verdict:
    """Says in one sentence what a model can do, from its errors at all steps ahead."""
    if diagnosis.is_collapsed:
        return Verdict(
            "bad",
            "Collapsed: the encoder gives nearly the same latent for every frame (variance "
            f"{diagnosis.mean_variance:.2g} per dimension, where 1 is wanted; effective rank "
            f"{diagnosis.effective_rank:.1f} of {len(diagnosis.variances)}), so its errors mean nothing.",
        )
    if not math.isfinite(diagnosis.blindness):
        return Verdict("bad", "Unknown: no validation episode has a frame to predict.")
    shares, gains = diagnosis.error_shares(), diagnosis.gains()
    better = [ahead for ahead, share in enumerate(shares, 1) if share < 1]
    one_step = f"its one-step error is {diagnosis.blindness:.2f} times that of repeating the last frame"
    rest = _other_measures(diagnosis)
    if not better and diagnosis.blindness < 1:
        share = f"{diagnosis.versus_mean:.2f} times that of predicting the mean"
        return Verdict("bad", f"Blind: its one-step error is {share}, and further ahead it is no better; {rest}.")
    if not better:
        return Verdict("bad", f"Blind: {one_step}, and further ahead it is no better; {rest}.")
    if not max(gains[ahead - 1] for ahead in better) >= DEAF_GAIN:
        return Verdict(
            "bad", f"Deaf to actions: {one_step}, but it predicts as well with actions from elsewhere; {rest}."
        )
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
    if run.step < run.max_steps:  # batch norms lag behind the weights: 17 became 0.64 in `make demo`
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


def next_steps(diagnosis: Diagnosis, run: Run) -> tuple[str, ...]:
    """Says what to do when training is done, most useful first; nothing before."""
    if run.step < run.max_steps:
        return ()
    assess = f"See what the recording can teach: lewm-data assess {shlex.quote(run.data)}"
    if diagnosis.is_collapsed:
        return f"Start again with --model.sigreg_weight {2 * run.sigreg_weight:.2g}.", assess
    steps = []
    end = f"--trainer.max_epochs {2 * run.max_epochs}" if run.max_epochs else f"--trainer.max_steps {2 * run.max_steps}"
    train_on = f"train on with --ckpt_path last {end}"
    blindness = [value for _, value in run.history]
    if len(blindness) > 1 and blindness[-1] > _OVERFITS * min(blindness):
        best = min(run.history, key=lambda entry: entry[1])
        steps.append(
            f"It was better after {count_of(best[0], 'step')} (blindness {best[1]:.2f}), so it overfits. Record more "
            f"than {count_of(run.num_train_episodes, 'training episode')}."
        )
    elif len(blindness) > 1 and blindness[-1] < _STILL_FALLING * blindness[-2]:
        steps.append(f"It still gets better (blindness {blindness[-2]:.2f}, then {blindness[-1]:.2f}): {train_on}")
    elif run.step < FEW_STEPS:
        steps.append(f"Training was short: {train_on}")
    shares = diagnosis.error_shares()
    if shares and shares[0] > NEARLY_BLIND and any(share < NEARLY_BLIND for share in shares):
        steps.append(f"Neighboring frames look much alike: start again with --data.frameskip {2 * run.frameskip}")
    if judge(diagnosis).level == "bad":
        if run.num_train_episodes < FEW_TRAIN_EPISODES and not any("Record more" in step for step in steps):
            steps.append(f"It trained on {count_of(run.num_train_episodes, 'episode')}, which are few. Record more.")
        steps.append(assess)
    return tuple(steps)


def _other_measures(diagnosis: Diagnosis) -> str:
    words = f"actions from elsewhere raise that error {diagnosis.action_gain:.2f} times, "
    if math.isfinite(diagnosis.plan_rank):
        words += f"the recorded actions rank at {diagnosis.plan_rank:.2f} among others (0 is first, 0.5 is chance), "
    words += f"the latents use {diagnosis.effective_rank:.1f} of {len(diagnosis.variances)} dimensions"
    if math.isfinite(diagnosis.mean_r2):
        can = "can" if diagnosis.mean_r2 > 0.5 else "can hardly" if diagnosis.mean_r2 > 0 else "cannot"
        words += f", and the state {can} be read from them (R2 {diagnosis.mean_r2:.2f})"
    elif not diagnosis.probe_r2:
        words += ", and the data has no state to read from them"
    return words
