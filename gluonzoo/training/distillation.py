"""Knowledge distillation: a network learns from what another says of each image, beside the labels.

Source: G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531, section 2.
The loss of an image is (1 - w) H(labels, p_1) + w T^2 KL(q_T, p_T), where p_T and q_T are the student's and the teacher's softmax
of the logits divided by the temperature T. Its gradient by the student's logits is (1 - w) (p_1 - labels) + w T (p_T - q_T).
Differences: the paper's second term is the cross-entropy; it differs by the entropy of q_T, which has no gradient, so that the
loss is 0 where the student agrees.
"""
import mxnet as mx
import numpy as np

from .. import arrays
from ..errors import UserError
from .tasks import Classification
from .weights import get_parameters

__all__ = ["distillation_loss", "Teacher", "Distillation", "open_teacher"]


def distillation_loss(outputs, teacher, temperature):
    """T^2 KL(softmax(teacher / T), softmax(outputs / T)), one value a sample; no gradient goes to the teacher.

    Shape: outputs, teacher (N, K) logits -> (N,) float32.
    """
    logs = mx.nd.log_softmax(outputs.astype("float32"), axis=1, temperature=temperature)
    with mx.autograd.pause(train_mode=False):
        wanted = mx.nd.log_softmax(teacher.astype("float32"), axis=1, temperature=temperature)
        shares = mx.nd.exp(wanted)
    return temperature ** 2 * mx.nd.sum(shares * (wanted - logs), axis=1)


class Teacher:
    """A trained network that runs in inference mode on the student's images, on each of its devices.

    Args:
        net: initialised, on all devices on which images come.
        input_shape: (C, H, W) that it was trained with; None: that of the images. Images of another size are resized, so that
            what they show is as large as it knows it, and then cut or set on black.
        mean, std: of its images' pixels, and image_mean, image_std: those by which the student's images were normalised; where
            they differ images are normalised anew. None: the same.
        shown: two sizes (height, width): of the picture in the student's input, and in the teacher's (`data.Transform.shown`);
            None: it fills both.
    """

    def __init__(self, net, input_shape=None, mean=None, std=None, image_mean=None, image_std=None, shown=None):
        for parameter in net.collect_params().values():
            parameter.grad_req = "null"
        net.hybridize(static_alloc=True)
        self.net, self._size = net, None if input_shape is None else tuple(input_shape[1:])
        self._digest, self._shown = None, shown
        self._scale = self._shift = self._black = None
        if image_mean is not None:
            image_mean, image_std = (np.atleast_1d(np.asarray(value, np.float64)) for value in (image_mean, image_std))
            self._black = (-image_mean / image_std).astype(np.float32).reshape((1, -1, 1, 1))
        if mean is not None and image_mean is not None:
            mean, std = (np.atleast_1d(np.asarray(value, np.float64)) for value in (mean, std))
            scale, shift = image_std / std, (image_mean - mean) / std
            if not (np.allclose(scale, 1) and np.allclose(shift, 0)):
                self._scale, self._shift = (value.astype(np.float32).reshape((1, -1, 1, 1)) for value in (scale, shift))

    def digest(self):
        """SHA-256 of its parameters, taken when it is first asked for."""
        self._digest = self._digest or arrays.digest(get_parameters(self.net))
        return self._digest

    def __call__(self, images):
        """Logits (N, K) of images (N, C, H, W), as the student sees them; nothing is recorded."""
        with mx.autograd.pause(train_mode=False):
            outputs = self.net(self.view(images))
            return outputs[0] if isinstance(outputs, (list, tuple)) else outputs

    def view(self, images):
        """The images as the teacher knows them: of its size, normalised its way."""
        if self._size is not None and images.shape[2:] != self._size:
            images = self._fitted(images)
        if self._scale is None:
            return images
        scale, shift = (mx.nd.array(value, ctx=images.context) for value in (self._scale, self._shift))
        return mx.nd.broadcast_add(mx.nd.broadcast_mul(images, scale), shift)

    def _fitted(self, images):
        size = images.shape[2:]
        mine, theirs = self._shown or (size, self._size)
        wanted = [round(length * new / old) for length, old, new in zip(size, mine, theirs)]
        if tuple(wanted) != tuple(size):
            images = mx.nd.contrib.BilinearResize2D(images, height=wanted[0], width=wanted[1])
        cut = [(here - length) // 2 if here > length else 0 for here, length in zip(wanted, self._size)]
        rows, columns = (slice(start, start + min(here, length)) for start, here, length in zip(cut, wanted, self._size))
        images = images[:, :, rows, columns]
        before = [(length - here) // 2 for length, here in zip(self._size, images.shape[2:])]
        after = [length - here - start for length, here, start in zip(self._size, images.shape[2:], before)]
        if not any(before + after):
            return images
        black = mx.nd.array(np.zeros((1, 1, 1, 1), np.float32) if self._black is None else self._black, ctx=images.context)
        images = mx.nd.pad(mx.nd.broadcast_sub(images, black), mode="constant", constant_value=0,
                           pad_width=(0, 0, 0, 0, before[0], after[0], before[1], after[1]))
        return mx.nd.broadcast_add(images, black)


class Distillation(Classification):
    """Classification whose training loss also asks to agree with a teacher.

    The teacher sees the very images that the student sees, augmented and mixed; label smoothing and auxiliary heads' losses are
    of the labels alone. Validation is Classification's.

    Args: teacher: a `Teacher`; temperature: T, above 0; weight: w, 0 to 1; the others: as of `Classification`.
    """

    def __init__(self, teacher, temperature=4.0, weight=0.9, **options):
        if not temperature > 0 or not 0 <= weight <= 1:
            raise UserError(f"distillation at temperature {temperature} with weight {weight}; expected a temperature above 0 and "
                            "a weight from 0 to 1")
        super().__init__(**options)
        self.teacher, self._temperature, self._weight = teacher, float(temperature), float(weight)

    def forward(self, net, images, labels):
        """As `Classification.forward`; in training there is the loss "distillation" too."""
        losses, outputs = super().forward(net, images, labels)
        if mx.autograd.is_training():
            losses["cross_entropy"] = (1 - self._weight) * losses["cross_entropy"]
            losses["distillation"] = self._weight * distillation_loss(outputs, self.teacher(images), self._temperature)
        return losses, outputs


def open_teacher(config, train_set, transform, contexts):
    """The `Teacher` that --teacher and --teacher-weights mean, on the run's devices.

    Args: train_set, transform: of the run, which the teacher has to fit.
    Raises: UserError when it cannot be loaded, or knows other classes or channels.
    """
    from .. import registry
    from ..compact import open_compact
    from ..data import Transform
    from ..interop import load_weights
    from ..sources import is_checkpoint, is_compact
    from . import checkpoint

    source, facts = config.teacher, {}
    if is_checkpoint(source) or is_compact(source):
        if config.teacher_weights is not None:
            raise UserError(f"--teacher-weights goes with a registered network's name; {source} has its own weights")
        if is_checkpoint(source):
            saved = checkpoint.load(source)
            net, facts = saved.net(ctx=contexts), saved.config
        else:
            net, facts = open_compact(source, contexts)
    else:
        spec = registry.model_spec(source)
        if config.teacher_weights is None:
            raise UserError(f"--teacher {source} is a network without weights: give --teacher-weights, or name a checkpoint or a "
                            "run's folder")
        classes = len(train_set.classes)
        arguments = {} if classes == spec.classes else {"classes": classes}
        if transform.input_shape[0] != spec.input_shape[0]:
            arguments["in_channels"] = transform.input_shape[0]
        net = registry.get_model(source, **arguments)
        net.initialize(ctx=contexts)
        load_weights(net, config.teacher_weights)
    classes = facts.get("classes")
    if classes and list(map(str, classes)) != list(map(str, train_set.classes)) or net.classes != len(train_set.classes):
        raise UserError(f"--teacher {source} knows {net.classes} classes ({', '.join(map(str, (classes or ())[:3]))} ...); "
                        f"{train_set.name} has {len(train_set.classes)} ({', '.join(map(str, train_set.classes[:3]))} ...); "
                        "expected the same")
    if net.in_channels != transform.input_shape[0]:
        raise UserError(f"--teacher {source} takes {net.in_channels} channels; the images have {transform.input_shape[0]}")
    shape = facts.get("input_shape") or (transform.input_shape[0], *_size_of(net, transform.input_shape[1:]))
    shown = None
    if train_set.image_shape:
        own = Transform(shape, transform.mean, transform.std)
        shown = [which.shown(*train_set.image_shape[1:]) for which in (transform, own)]
    return Teacher(net, shape, facts.get("mean"), facts.get("std"), transform.mean, transform.std, shown)


def _size_of(net, size):
    """The size that a network without a checkpoint is shown: its own where it takes only that, else the images'."""
    return net.min_size if net.fixed_size else [max(least, here) for least, here in zip(net.min_size, size)]
