"""What a run shows and writes: its view on the terminal, a JSON-lines log, TensorBoard."""
import json
import os
import time

from .progress import Progress

__all__ = ["RunLog"]


class RunLog:
    """The log of one run. On workers other than rank 0 it writes nothing, and shows lines only with `show_workers`.

    Files in folder: log.jsonl (an object a line: "event" is start, step or epoch, "time" seconds since 1970) and tensorboard/
    when tensorboardX is installed (``pip install -e '.[visual]'``).

    Args:
        folder: the run's folder, or None for no files.
        enabled: False on other ranks.
        interval: seconds between "step" events, and between lines when the output is not a terminal.
        config: `TrainConfig`, of which quiet, show_workers and log_format are read; None for the defaults.
        rank, workers: which of how many workers this is.
    """

    def __init__(self, folder, enabled=True, interval=5.0, config=None, rank=0, workers=1):
        self.enabled, self._interval, self._workers = enabled, interval, workers
        self._file = self._board = None
        self._written, self._pictures, self._processor = 0.0, True, None
        self._progress = os.environ.get("GLUONZOO_PROGRESS_FILE")
        self._lines = not enabled and bool(getattr(config, "show_workers", False))
        style = getattr(config, "log_format", "text") if enabled else "text" if self._lines else "none"
        # The launcher puts a worker's name in front of its lines.
        name = f"worker {rank}" if self._lines and not self._progress else ""
        self.view = Progress(style, getattr(config, "quiet", False), name, interval, lines=self._lines)
        if enabled and folder is not None:
            os.makedirs(folder, exist_ok=True)
            self._file = open(os.path.join(folder, "log.jsonl"), "a", encoding="utf-8")
            try:
                from tensorboardX import SummaryWriter
                self._board = SummaryWriter(os.path.join(folder, "tensorboard"))
            except ImportError:
                self.say("TensorBoard is off: pip install -e '.[visual]'", detail=True)

    def begin_board(self, run):
        """Write the network's graph into TensorBoard, at a run's very beginning."""
        if self._board is not None and run.position.step == 0:
            from ..visual.tensorboard import write_graph
            self._draw(lambda: write_graph(self._board, run.net, run.train_set[1].input_shape))

    def epoch_board(self, run, epoch):
        """Write the images and histograms that the configuration asks for into TensorBoard, after an epoch (from 0)."""
        (dataset, transform), step = run.train_set, run.position.step
        images, every = (getattr(run.config, name, 0) for name in ("board_images", "board_histograms"))
        if self._board is not None and images:
            from ..visual.tensorboard import write_images
            self._draw(lambda: write_images(self._board, run.net, dataset, transform, images, epoch, step))
        if self._board is not None and every and (epoch + 1) % every == 0:
            from ..visual.tensorboard import write_histograms
            self._draw(lambda: write_histograms(self._board, run.net, step))

    def _draw(self, write):
        """Write pictures; whatever goes wrong with them must not end a training."""
        if self._pictures:
            try:
                write()
            except Exception as error:
                self._pictures = False
                self.say(f"no pictures in TensorBoard from here on: {type(error).__name__}: {error}")

    def say(self, text, detail=False):
        """Show a line (rank 0 only). detail: one that --quiet leaves out."""
        if self.enabled:
            self.view.say(text, detail)

    def start(self, facts):
        """Log the beginning of a run, or of its continuation: {"config": ..., "machine": ...}."""
        self._record({"event": "start", **facts})

    def start_epoch(self, epoch, epochs, steps, done=0):
        """Begin an epoch: number of updates in it, and how many were done before (a resumed run)."""
        self._processor = time.process_time()
        self.view.start_epoch(epoch, epochs, steps, done)

    def step(self, epoch, step, step_in_epoch, loss, metric, rate, speed):
        """Report progress after an update: mean loss (None: not known yet) and metric of the epoch so far, rate, speed."""
        if self._progress:
            # Read by the launcher, whose deadlines watch steps rather than mere process life.
            with open(self._progress, "w", encoding="ascii") as file:
                file.write(f"{step}\n")
        if loss is None or not (self.enabled or self._lines):
            return
        self.view.step(step_in_epoch, loss, metric, rate, speed)
        if self.enabled and time.monotonic() - self._written >= self._interval:
            self._written = time.monotonic()
            self._record({"event": "step", "epoch": epoch, "step": step, "loss": loss, f"{metric[0]}": metric[1],
                          "lr": rate, "images_per_second": speed})
            self._scalars(step, {"train/loss": loss, f"train/{metric[0]}": metric[1], "train/lr": rate,
                                 "train/images_per_second": speed})

    def heartbeat(self, text):
        """Tell the launcher that work goes on outside of updates (validation, writing a checkpoint)."""
        if self._progress:
            with open(self._progress, "w", encoding="ascii") as file:
                file.write(f"{text}\n")

    def end_epoch(self, record, history=()):
        """Show and write the epoch's record ({"epoch", "step", "train_loss", ...}); history: those of the epochs so far.

        The file's record has "cpu_seconds" too: processor time of this process, all threads, from the epoch's beginning to here,
        validation included. Where other programs have a share of the machine it tells more than the clock does.
        """
        if not self.enabled:
            self.view.close()
            return
        earlier = [other["val_accuracy"] for other in history if other is not record and "val_accuracy" in other]
        self.view.end_epoch(record, best=bool(earlier) and record.get("val_accuracy", 0) > max(earlier))
        used = {} if self._processor is None else {"cpu_seconds": round(time.process_time() - self._processor, 3)}
        self._record({"event": "epoch", **record, **used})
        self._scalars(record["step"], {name.replace("_", "/", 1): value for name, value in record.items()
                                       if name.startswith(("train_", "val_"))})

    def finish(self, facts):
        """Tell scripts how the run ended; not in the log, whose last line stays the last epoch's."""
        if self.enabled:
            self.view.event({"event": "finish", "time": round(time.time(), 3), **facts})

    def _record(self, record):
        if not self.enabled:
            return
        record = {**record, "time": round(time.time(), 3)}
        self.view.event(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def _scalars(self, step, values):
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self):
        """Close the files."""
        self.view.close()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._board is not None:
            self._board.close()
            self._board = None
