"""The base of every network: named stages, heads that can be changed, and a check of what comes in."""
import collections
import numbers

from mxnet.gluon import Block, HybridBlock, Parameter
from mxnet.ndarray import NDArray

from ..errors import UserError

__all__ = ["Network", "Stages", "FeatureMaps", "features", "check_flag", "check_positive"]


def check_positive(**values):
    """Raise UserError unless every value is a whole number of at least 1; the message names the first that is not."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name} is {value!r}; expected a whole number of at least 1")


def check_flag(**values):
    """Raise UserError unless every value is True or False; the message names the first that is not."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise UserError(f"{name} is {value!r}; expected True or False")


class Stages(HybridBlock):
    """Blocks that run one after the other, each an attribute under its own name.

    Shape: that of the first block's input -> that of the last block's output.
    """

    def hybrid_forward(self, F, x):
        for block in self._children.values():
            x = block(x)
        return x


class Network(HybridBlock):
    """A network of `features` (a `Stages` that gives the feature map) and `output` (the last layer).

    A subclass sets `features` and `output` inside `name_scope()`, and defines `hybrid_forward` and `make_output`.
    One with auxiliary heads sets them as attributes, calls `name_auxiliary` with their names, and returns the main
    output and theirs as a list; the caller gets a named tuple, eager and hybridized, training or not.

    Args:
        classes: number of classes, at least 1.
        in_channels: channels of the input, at least 1.
        min_size: (H, W) of the smallest workable input.
        fixed_size: whether inputs must have exactly `min_size`.
    """
    #: What `gluonzoo.get_model` was asked for; None for a network that was not built through the registry.
    model_name = None
    model_kwargs = None
    #: Names of the auxiliary heads, and the type of the outputs where there are any.
    auxiliary = ()
    _outputs = None

    def __init__(self, classes, in_channels, min_size=(1, 1), fixed_size=False):
        check_positive(classes=classes, in_channels=in_channels)
        super().__init__()
        self.classes, self.in_channels = int(classes), int(in_channels)
        self.min_size, self.fixed_size = tuple(min_size), fixed_size

    @property
    def stages(self):
        """Names of the stages of `features`, in order."""
        return tuple(self.features._children)

    def check_input(self, shape):
        """Raise UserError unless `shape` is an (N, C, H, W) that this network takes; the message names both."""
        name, shape = self.model_name or type(self).__name__, tuple(shape)
        if len(shape) != 4:
            raise UserError(f"{name} takes 4 dimensions (N, C, H, W); the input has {len(shape)}: {shape}")
        if shape[0] < 1:
            raise UserError(f"{name} takes at least 1 image; the input has {shape[0]}: {shape}")
        if shape[1] != self.in_channels:
            raise UserError(f"{name} takes {self.in_channels} channels; the input has {shape[1]}: {shape}")
        (height, width), (rows, columns) = self.min_size, shape[2:]
        if rows < height or columns < width or (self.fixed_size and shape[2:] != self.min_size):
            bound = "exactly" if self.fixed_size else "at least"
            raise UserError(f"{name} takes images of {bound} {height}x{width}; the input has {rows}x{columns}")

    def forward(self, x, *args):
        # Symbols (tracing, export, a hybridized parent) have no shape to check.
        if isinstance(x, NDArray):
            self.check_input(x.shape)
        outputs = super().forward(x, *args)
        return outputs if self._outputs is None else self._outputs(*outputs)

    def name_auxiliary(self, *names):
        """Make the outputs a named tuple: `output`, then these; each is an attribute, a block with an `output` of its
        own and a `make_output(classes)`."""
        self.auxiliary = names
        self._outputs = collections.namedtuple(f"{type(self).__name__}Outputs", ("output",) + names)

    def make_output(self, classes):
        """A new, uninitialised last layer for so many classes; called inside `name_scope()`."""
        raise NotImplementedError(f"{type(self).__name__} does not define make_output")

    def adapt(self, **options):
        """Make the network what its builder makes with these keywords, where that needs no other parameters.

        For weights that were trained in a variant: another normalization constant, another pooling. Parameters, and a
        Trainer that holds them, stay as they are.

        Args:
            options: keywords of the builder.
        Raises: UserError when the network was not built by name, or the keywords lead to other layers; it is unchanged then.
        """
        from ..registry import get_model
        if self.model_name is None:
            raise UserError(f"{type(self).__name__} was not built by name; expected a network of gluonzoo.get_model")
        kwargs = dict(self.model_kwargs, **options)
        pairs = list(_side_by_side(self, get_model(self.model_name, **kwargs)))
        if any(twin is None or type(block) is not type(twin) or [parameter.shape for parameter in block._reg_params.values()]
               != [parameter.shape for parameter in twin._reg_params.values()] for block, twin in pairs):
            raise UserError(f"{self.model_name} cannot be changed to {options} once it is built: that has other layers")
        plain = set(HybridBlock().__dict__)
        for block, twin in pairs:
            for key, value in twin.__dict__.items():
                if key not in plain and not isinstance(value, (Block, Parameter)):
                    block.__dict__[key] = value
        self.model_kwargs = kwargs
        self.hybridize(self._active, **dict(self._flags))  # Forgets the graph that it was compiled to.

    def reset_classes(self, classes, ctx=None):
        """Put new last layers in place, for another number of classes; all other layers keep their parameters.

        If the network is initialised, or `ctx` is given, the new layers are initialised too. A Trainer made before
        still holds the old layers' parameters: make a new one.

        Args:
            ctx: context or list of contexts of the new layers; by default those of the old ones.
        """
        check_positive(classes=classes)
        for head in [self] + [getattr(self, name) for name in self.auxiliary]:
            _replace_output(head, int(classes), ctx, self._active, self._flags)
        self.classes = int(classes)
        if self.model_kwargs is not None:
            self.model_kwargs = dict(self.model_kwargs, classes=self.classes)


def _replace_output(head, classes, ctx, active, flags):
    """Give a network or an auxiliary head a new `output`, in the state the old one was in."""
    old = next(iter(head.output.collect_params().values()))
    if ctx is None and old._data is not None:
        ctx = old.list_ctx()
    with head.name_scope():
        output = head.make_output(classes)
    output.cast(old.dtype)
    if ctx is not None:
        output.initialize(ctx=ctx)
    output.hybridize(active, **dict(flags))
    head.output = output


def _side_by_side(block, twin):
    """Pairs of the blocks of two trees; None stands for a block that the second does not have."""
    yield block, twin
    names = block._children.keys() | (twin._children.keys() if twin is not None else set())
    for name in names:
        mine, other = block._children.get(name), twin._children.get(name) if twin is not None else None
        if mine is None or other is None:
            yield other if mine is None else mine, None
        else:
            yield from _side_by_side(mine, other)


class FeatureMaps(HybridBlock):
    """The feature maps of a network after some of its stages; it shares the network's parameters.

    Shape: the network's input -> list of feature maps, in the order in which the stages were named.
    """

    def __init__(self, net, stages):
        super().__init__()
        self._wanted, self._check = tuple(stages), net.check_input
        last = max(net.stages.index(name) for name in self._wanted)
        for name in net.stages[:last + 1]:
            self.register_child(getattr(net.features, name), name)

    def forward(self, x):
        if isinstance(x, NDArray):
            self._check(x.shape)
        return super().forward(x)

    def hybrid_forward(self, F, x):
        maps = {}
        for name, block in self._children.items():
            x = maps[name] = block(x)
        return [maps[name] for name in self._wanted]


def features(net, stages):
    """A block that gives `net`'s feature maps after the named stages, for example ``features(net, ("stage2",))``.

    The block shares the network's parameters and its layers: initialise and train either. Stages after the last one
    named are not computed.

    Returns: FeatureMaps, whose output is a list in the order of `stages`.
    Raises: UserError for a name that is not in `net.stages`, an empty list, or a network without named stages.
    """
    stages = (stages,) if isinstance(stages, str) else tuple(stages)
    if not isinstance(net, Network):
        raise UserError(f"{type(net).__name__} has no named stages; expected a network of gluonzoo")
    unknown = [name for name in stages if name not in net.stages]
    if unknown or not stages:
        asked = f"no stage called {unknown[0]!r}" if unknown else "no feature map for an empty list of stages"
        raise UserError(f"{net.model_name or type(net).__name__} has {asked}; its stages are {', '.join(net.stages)}")
    return FeatureMaps(net, stages)
