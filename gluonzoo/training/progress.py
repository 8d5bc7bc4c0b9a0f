"""What a person or a script sees of a run while it goes: a bar, lines, the epochs' results alone, or JSON objects."""
import json
import os
import sys
import time

__all__ = ["Progress", "remaining", "time_text"]


def time_text(seconds):
    """Seconds as 45 s, 3:07 min or 2:05 h."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"


def remaining(steps_left, epochs_left, seconds_of_step, seconds_of_epoch):
    """Seconds to the end of a run, or None where nothing is known yet.

    Args:
        steps_left: updates to the end of this epoch; epochs_left: whole epochs after it.
        seconds_of_step: mean in this epoch, or None; seconds_of_epoch: mean of a whole one with its validation and
            checkpoint, or None in the first.
    """
    if seconds_of_step is None:
        return None
    return seconds_of_step * steps_left + epochs_left * (seconds_of_epoch or 0)


class Progress:
    """The view of one worker's run.

    Args:
        style: "text", "json" (one object a line on standard output and nothing else) or "none".
        quiet: only epochs' results, and what needs attention.
        name: what begins each line, for example "worker 1"; "" for nothing.
        interval: seconds between lines where there is no bar.
        stream: where to, standard output by default.
        lines: never a bar, even on a terminal.
    """

    def __init__(self, style="text", quiet=False, name="", interval=5.0, stream=None, lines=False):
        self._stream = stream or sys.stdout
        self._style, self._quiet, self._name, self._interval = style, quiet, f"{name}  " if name else "", interval
        # The launcher passes bars through a pipe; it says so when a terminal is at the other end.
        terminal = self._stream.isatty() or os.environ.get("GLUONZOO_BAR") == "1"
        self._wants_bar = style == "text" and terminal and not quiet and not lines
        self._bar, self._told, self._label = None, time.monotonic(), ""
        self._epoch_begun = self._begun_at = None
        self._epoch = self._epochs = self._steps = 0
        self._full_epochs = []

    def _print(self, text):
        if self._bar is not None:
            self._bar.clear()
        print(text, file=self._stream, flush=True)

    def say(self, text, detail=False):
        """Show a line. detail: it is one that a quiet run leaves out."""
        if self._style == "none" or detail and self._quiet:
            return
        self._print(json.dumps({"event": "message", "text": text}) if self._style == "json" else self._name + text)

    def event(self, record):
        """Give scripts a record; a person sees nothing of it."""
        if self._style == "json" and not (self._quiet and record.get("event") == "step"):
            self._print(json.dumps(record))

    def start_epoch(self, epoch, epochs, steps, done=0):
        """Begin an epoch (from 0) of `steps` updates, of which `done` were made before."""
        now = time.monotonic()
        if self._epoch_begun is not None and self._epoch + 1 == epoch and self._begun_at == 0:
            self._full_epochs.append(now - self._epoch_begun)
        self._epoch_begun, self._begun_at = now, done
        self._epoch, self._epochs, self._steps = epoch, epochs, steps
        self._label = f"epoch {epoch + 1}/{epochs}"
        if self._wants_bar:
            from tqdm import tqdm
            # The words are the description: a postfix would begin with a comma. What matters least is last, where it is cut.
            self._bar = tqdm(total=steps, initial=done, file=self._stream, dynamic_ncols=True, leave=False, mininterval=0.25,
                             bar_format=self._label + " {percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt} <{remaining}  {desc}")

    def _left(self, step):
        """Seconds to the end of the run, or None."""
        made = step - self._begun_at if self._begun_at is not None else 0
        of_step = (time.monotonic() - self._epoch_begun) / made if made > 0 else None
        # Before an epoch has ended, later ones are taken to be as long as their updates.
        full = sum(self._full_epochs) / len(self._full_epochs) if self._full_epochs else of_step and of_step * self._steps
        return remaining(self._steps - step, self._epochs - self._epoch - 1, of_step, full)

    def step(self, step, loss, metric, rate, speed):
        """Show progress after an update.

        Args: step: number in the epoch, from 1; loss: mean of the epoch so far; metric: (name, mean so far); rate: learning
            rate; speed: images a second.
        """
        if self._style != "text" or self._quiet:
            return
        figures, rate = f"loss {loss:.4f}  {metric[0]} {metric[1]:.4f}", f"lr {rate:.4g}"
        if self._bar is not None:
            left = self._left(step)
            end = f"  {time_text(left)} to the end" if left is not None and self._epochs > 1 else ""
            self._bar.set_description_str(f"{figures}  {speed:,.0f} img/s{end}  {rate}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._told >= self._interval:
            self._told = time.monotonic()
            left = self._left(step)
            end = "" if left is None else f"  {time_text(left)} to the end"
            self._print(f"{self._name}{self._label}  step {step}/{self._steps}  {figures}  {rate}  {speed:,.0f} img/s{end}")

    def end_epoch(self, record, best=False):
        """Take the bar away and show an epoch's results. best: they are the run's best so far."""
        self.close()
        if self._style != "text":
            return
        parts = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in record.items()
                 if name.startswith(("train_", "val_"))]
        if best:
            parts.append("(best so far)")
        if "sparsity" in record:
            parts.append(f"pruned {100 * record['sparsity']:.1f} %")
        if "left_out" in record:
            parts.append(f"updates left out {record['left_out']}")
        if record.get("data_wait", 0) >= 0.05:
            parts.append(f"waiting for data {100 * record['data_wait']:.0f} %")
        seconds = self._full_epochs + ([time.monotonic() - self._epoch_begun] if self._begun_at == 0 else [])
        left = (self._epochs - self._epoch - 1) * sum(seconds) / len(seconds) if seconds else 0
        end = f"  {time_text(left)} to the end" if left and not self._quiet else ""
        self._print(f"{self._name}{self._label}  {'  '.join(parts)}  {record['images_per_second']:,.0f} img/s  "
                    f"{record['seconds']:.1f} s{end}")

    def close(self):
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
