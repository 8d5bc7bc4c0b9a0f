"""What a process does with a piece of a batch job; as a program one of the processes that `gluonzoo.export.pool` starts.

As a program it reads a JSON object a line: first what to open, then a piece at a time; each is answered with a line. It ends at
the end of its input, at once, so also when whoever started it was killed.
"""
import json
import os
import queue
import signal
import sys
import threading
import time

from ..errors import UserError
from .predictor import read_images

__all__ = ["Reader", "classify", "main"]

#: Unmeasured runs of the first image before latency is measured.
WARM_UP = 5


class Reader:
    """Images of files; of a NumPy array of several, the array is kept until another file is asked for."""

    def __init__(self):
        self._path, self._images = None, None

    def image(self, path, index):
        """The image (h, w, c) uint8 in a file, of an array the one at `index`. Raises: UserError naming the file."""
        if index is None:
            return read_images(path)[0]
        if self._path != path:
            self._images = read_images(path)
            self._path = path
        if index >= len(self._images):
            raise UserError(f"{path}: the array has become shorter: {len(self._images)} images, number {index} was there")
        return self._images[index]


def classify(predictor, reader, piece, options):
    """Run a piece: a list of [path, index in an array or None, name, file of a picture or None].

    Args: options: top, crops, mirror: as of `Predictor.predict`; keep_going: an image that cannot be read is passed over.
    Returns: {"guesses": [[[index, name, probability], ...] or None], "errors": [text or None], an item each; "seconds": [spent
        reading, spent on the rest]}.
    Raises: UserError, without keep_going, for an image that cannot be read.
    """
    begun = time.perf_counter()
    images, errors = [], []
    for path, index, _, _ in piece:
        try:
            images.append(reader.image(path, index))
            errors.append(None)
        except UserError as error:
            if not options["keep_going"]:
                raise
            errors.append(str(error))
    read = time.perf_counter()
    found = predictor.predict(images, options["top"], options["crops"], options["mirror"]) if images else []
    ended = time.perf_counter()
    answers, guesses, shown = [], iter(found), iter(images)
    for (_, _, name, picture), error in zip(piece, errors):
        if error is not None:
            answers.append(None)
            continue
        several, image = next(guesses), next(shown)
        if picture is not None:
            from ..visual.predictions import prediction_picture
            prediction_picture(image, several, picture, title=name)
        answers.append([[guess.index, guess.name, guess.probability] for guess in several])
    return {"guesses": answers, "errors": errors, "seconds": [read - begun, ended - read]}


def warm_up(predictor, reader, piece, options):
    """Run a piece so often that what is made at a first run is there; drawn pictures are left out."""
    for _ in range(WARM_UP):
        classify(predictor, reader, [[*item[:3], None] for item in piece], options)


def _lines(requests):
    """Put the objects of standard input into a queue; at its end the process ends, whatever it is doing."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def main():
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Whatever else prints must not come between the answers.
    requests = queue.Queue()
    threading.Thread(target=_lines, args=(requests,), daemon=True).start()

    def answer(values):
        answers.write(json.dumps(values).encode() + b"\n")
        answers.flush()

    from ..sources import open_predictor
    setup, told, begun = requests.get(), [], time.perf_counter()
    try:
        predictor = open_predictor(**setup["source"], tell=told.append)
    except UserError as error:
        answer({"refused": str(error)})
        return
    answer({"ready": True, "told": told, "seconds": time.perf_counter() - begun})
    reader, options, cold = Reader(), setup["options"], setup["options"]["warm_up"]
    while True:
        request = requests.get()
        try:
            if cold:
                warm_up(predictor, reader, request["piece"], options)
                cold = False
            answer({"number": request["number"], **classify(predictor, reader, request["piece"], options)})
        except UserError as error:
            answer({"number": request["number"], "refused": str(error)})
        except OSError as error:
            answer({"number": request["number"], "refused": f"cannot write {error.filename}: {error.strerror or error}"})


if __name__ == "__main__":
    main()
