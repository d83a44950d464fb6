"""The built-in list, the layers of `torch.nn`: made without their constructors, and given the state of a module."""

from __future__ import annotations

from typing import Any, Final

from safepickle.guard.limits import Refusal
from safepickle.guard.rules.base import Facts, Judge, Rule, expect


def _module_state(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    if type(state) is not dict:
        raise Refusal("the state of the layer is not a dict")
    judge.check_attributes(obj, state)
    return _set_state


def _set_state(obj: Any, state: Any) -> None:
    obj.__setstate__(state)


def _no_arguments(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments)


_LAYERS: Final = {
    "pooling": "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d "
    "AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d FractionalMaxPool3d LPPool1d "
    "LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d",
    "adaptive": "AdaptiveLogSoftmaxWithLoss",
    "dropout": "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout",
    "loss": "BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss "
    "HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss MarginRankingLoss MultiLabelMarginLoss "
    "MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss PoissonNLLLoss SmoothL1Loss SoftMarginLoss "
    "TripletMarginLoss",
    "batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    "linear": "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    "activation": "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish "
    "MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus "
    "Softshrink Softsign Tanh Tanhshrink Threshold",
    "channelshuffle": "ChannelShuffle",
    "padding": "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d "
    "ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad1d "
    "ZeroPad2d ZeroPad3d",
    "container": "ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "distance": "CosineSimilarity PairwiseDistance",
    "normalization": "CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "sparse": "Embedding EmbeddingBag",
    "flatten": "Flatten Unflatten",
    "fold": "Fold Unfold",
    "rnn": "GRU GRUCell LSTM LSTMCell RNN RNNCell",
    "instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "module": "Module",
    "pixelshuffle": "PixelShuffle PixelUnshuffle",
    "transformer": "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer",
    "upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
}

RULES: Final[dict[tuple[str, str], Rule]] = {
    (f"torch.nn.modules.{module}", name): Rule(_no_arguments, state=_module_state, data=True, new_only=True)
    for module, names in _LAYERS.items()
    for name in names.split()
}
