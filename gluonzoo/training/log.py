"""What a run shows and writes: a progress line or bar, a JSON-lines log, TensorBoard scalars."""
import json
import os
import sys
import time

__all__ = ["RunLog"]


class RunLog:
    """The log of one run. On workers other than rank 0 it shows and writes nothing.

    Files in folder: log.jsonl (an object a line, events "step" and "epoch") and tensorboard/ when tensorboardX is
    installed (``pip install -e '.[visual]'``).

    Args:
        folder: the run's folder, or None for no files.
        enabled: False on other ranks.
        interval: seconds between "step" events, and between lines when the output is not a terminal.
    """

    def __init__(self, folder, enabled=True, interval=5.0):
        self.enabled, self._interval = enabled, interval
        self._file = self._board = self._bar = None
        self._told = time.monotonic()
        self._progress = os.environ.get("GLUONZOO_PROGRESS_FILE")
        # The launcher passes bars through a pipe; it says so when a terminal is at the other end.
        self._terminal = sys.stdout.isatty() or os.environ.get("GLUONZOO_BAR") == "1"
        if enabled and folder is not None:
            os.makedirs(folder, exist_ok=True)
            self._file = open(os.path.join(folder, "log.jsonl"), "a", encoding="utf-8")
            try:
                from tensorboardX import SummaryWriter
                self._board = SummaryWriter(os.path.join(folder, "tensorboard"))
            except ImportError:
                self.say("TensorBoard scalars are off: pip install -e '.[visual]'")

    def say(self, text):
        """Print a line (rank 0 only)."""
        if self.enabled:
            if self._bar is not None:
                self._bar.clear()
            print(text, flush=True)

    def start_epoch(self, epoch, epochs, steps, done=0):
        """Begin an epoch's bar: number of updates in it, and how many were done before (a resumed run)."""
        self._label, self._steps = f"epoch {epoch + 1}/{epochs}", steps
        if self.enabled and self._terminal:
            from tqdm import tqdm
            self._bar = tqdm(total=steps, initial=done, desc=self._label, unit="step", file=sys.stdout,
                             dynamic_ncols=True, leave=False, mininterval=0.25)

    def step(self, epoch, step, step_in_epoch, loss, metric, rate, speed):
        """Report progress after an update: mean loss (None: not known yet) and metric of the epoch so far, rate, speed."""
        if self._progress:
            # Read by the launcher, whose deadlines watch steps rather than mere process life.
            with open(self._progress, "w", encoding="ascii") as file:
                file.write(f"{step}\n")
        if not self.enabled or loss is None:
            return
        shown = f"loss {loss:.4f}  {metric[0]} {metric[1]:.4f}  lr {rate:.4g}  {speed:,.0f} img/s"
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(step_in_epoch - self._bar.n)
        if time.monotonic() - self._told >= self._interval:
            self._told = time.monotonic()
            if self._bar is None:
                print(f"{self._label}  step {step_in_epoch}/{self._steps}  {shown}", flush=True)
            self._write({"event": "step", "epoch": epoch, "step": step, "loss": loss, f"{metric[0]}": metric[1],
                         "lr": rate, "images_per_second": speed})
            self._scalars(step, {"train/loss": loss, f"train/{metric[0]}": metric[1], "train/lr": rate,
                                 "train/images_per_second": speed})

    def heartbeat(self, text):
        """Tell the launcher that work goes on outside of updates (validation, writing a checkpoint)."""
        if self._progress:
            with open(self._progress, "w", encoding="ascii") as file:
                file.write(f"{text}\n")

    def end_epoch(self, record):
        """Close the bar; print and write the epoch's record ({"epoch", "step", "train_loss", ...})."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if not self.enabled:
            return
        parts = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in record.items()
                 if name.startswith(("train_", "val_"))]
        if "left_out" in record:
            parts.append(f"updates left out {record['left_out']}")
        print(f"{self._label}  {'  '.join(parts)}  {record['images_per_second']:,.0f} img/s  {record['seconds']:.1f} s",
              flush=True)
        self._write({"event": "epoch", **record})
        self._scalars(record["step"], {name.replace("_", "/", 1): value for name, value in record.items()
                                       if name.startswith(("train_", "val_"))})

    def _write(self, record):
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def _scalars(self, step, values):
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self):
        """Close the files."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
