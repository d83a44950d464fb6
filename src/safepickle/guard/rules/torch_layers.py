"""The built-in list, the layers of `torch.nn`: made without their constructors, and given the state of a module.

torch's ``__setstate__`` reads the state: it asks tables for names, loops over counts, and refers weakly to weights. So
what it reads has exact types, names what is there, and is copied; the hooks stay the stream's own, since handles refer
to them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from safepickle.guard.limits import Malformed, Refusal
from safepickle.guard.rules.base import Rule, RuleContext, ValueInfo, allocate, no_arguments, set_state
from safepickle.guard.rules.copies import own_container
from safepickle.guard.users_state import check_attributes

_TABLES: Final = ("_parameters", "_buffers", "_modules")
_WEIGHTS: Final = ("_all_weights", "_flat_weights_names", "_flat_weights")
_SET_BY_TORCH: Final = (
    "_forward_pre_hooks _forward_pre_hooks_with_kwargs _forward_hooks _forward_hooks_with_kwargs "
    "_forward_hooks_always_called _backward_hooks _backward_pre_hooks _state_dict_hooks _state_dict_pre_hooks "
    "_load_state_dict_pre_hooks _load_state_dict_post_hooks _non_persistent_buffers_set _is_full_backward_hook "
    "proj_size _all_weights _flat_weights_names _flat_weights _flat_weight_refs"
)
"""What torch sets where a state of an older version lacks it: it fails where a parameter has the name."""

_METHODS: Final = (
    "_apply _apply_instance_norm _call_impl _check_input_dim _check_non_zero_input_channels _compiled_call_impl "
    "_conv_forward _ff_block _fill_padding_idx_with_zero _get_abs_string_index _get_backward_hooks "
    "_get_backward_pre_hooks _get_full_log_prob _get_item_by_idx _get_name _get_no_batch_dim _handle_no_batch_input "
    "_init_flat_weights _key_to_attr _load_from_state_dict _maybe_warn_non_full_backward_hook _mha_block "
    "_named_members _output_padding _register_load_state_dict_pre_hook _register_state_dict_hook "
    "_replicate_for_data_parallel _require_tuple_int _reset_parameters _sa_block _save_to_state_dict _slow_forward "
    "_update_flat_weights _weights_have_changed _wrapped_call_impl add_module append apply bfloat16 buffers "
    "check_forward_args check_hidden_size check_input children clear compile convert_sync_batchnorm copy cpu cuda "
    "double eval extend extra_repr flatten_parameters float forward from_pretrained fromkeys "
    "generate_square_subsequent_mask get get_buffer get_expected_cell_size get_expected_hidden_size get_extra_state "
    "get_parameter get_submodule half insert ipu items keys load_state_dict log_prob merge_masks modules mtia "
    "named_buffers named_children named_modules named_parameters parameters permute_hidden pop popitem predict "
    "register_backward_hook register_buffer register_forward_hook register_forward_pre_hook "
    "register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook "
    "register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook "
    "register_state_dict_pre_hook requires_grad_ reset_parameters reset_running_stats set_extra_state set_submodule "
    "setdefault share_memory state_dict to to_empty train type update values xpu zero_grad"
)
"""The methods of all layers. `safepickle.inspect` has no torch to ask."""

_NAMES_OF_TORCH: Final = frozenset(_SET_BY_TORCH.split())
_METHODS_OF_LAYERS: Final = frozenset(_METHODS.split())


def _module_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    if type(state) is not dict or set(map(type, state)) - {str}:
        raise Refusal("the state of the layer is not a dict of attributes")
    check_attributes(state)
    for name in _METHODS_OF_LAYERS.intersection(state):
        # Some models note on each layer what `type` it is.
        if type(state[name]) not in (str, int, float, bool, type(None)):
            raise Refusal(f"the state would hide the layer's {name}")
    for name in _TABLES:
        if name in state:
            state[name] = _own_table(context, state[name])
    if "_non_persistent_buffers_set" in state:
        names = state["_non_persistent_buffers_set"] = own_container(context, state["_non_persistent_buffers_set"], 1)
        if type(names) is not set or set(map(type, names)) - {str}:
            raise Refusal("the names of the layer's buffers are malformed")
    if any("_hooks" in name and type(hooks) not in (OrderedDict, dict) for name, hooks in state.items()):
        raise Refusal("the hooks of the layer are malformed")
    return set_state


def _own_table(context: RuleContext, table: Any) -> Any:
    """Judge a table of parameters, buffers or layers, and return a copy."""
    if type(table) not in (dict, OrderedDict):
        raise Refusal("a table of the layer is no dict")
    allocate(context, 64 * len(table))
    table = table.copy()
    if set(map(type, table)) - {str} or not _NAMES_OF_TORCH.isdisjoint(table):
        raise Refusal("a table of the layer has a name in it that none can have")
    return table


def _recurrent_state(context: RuleContext, obj: Any, info: ValueInfo | None, state: Any) -> Any:
    setter = _module_state(context, obj, info, state)
    own_weights(context, state)
    return setter


def own_weights(context: RuleContext, state: dict[str, Any]) -> None:
    """Judge the weights in the state of a recurrent layer, and copy their lists: they stand by name since torch 1.4.

    Of an older one torch makes the names anew, for as many layers as the state says.
    """
    for name in _WEIGHTS:
        state[name] = own_container(context, state.get(name), 1)
        if type(state[name]) is not list:
            raise Refusal("the layer has no list of its weights")
    if "all_weights" in state or not state["_all_weights"]:
        raise Refusal("the weights of the layer are not written by name")
    state["_all_weights"] = [own_container(context, names, 1) for names in state["_all_weights"]]
    if not all(type(names) is list and names for names in state["_all_weights"]):
        raise Refusal("the weights of the layer are not written by name")
    if any(type(name) is not str for names in (state["_flat_weights_names"], *state["_all_weights"]) for name in names):
        raise Refusal("the weights of the layer are not written by name")
    weights = state["_flat_weights"]
    if len(weights) != len(state["_flat_weights_names"]):
        raise Malformed("the layer has more names of weights than weights, or fewer")
    allocate(context, 64 * len(weights))
    for weight in weights:
        known = context.info(weight)
        if weight is not None and (known is None or known.kind != "tensor"):
            raise Refusal("a weight of the layer is no tensor of this file")


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

_RECURRENT: Final = ("GRU", "LSTM", "RNN")

RULES: Final[dict[tuple[str, str], Rule]] = {
    (f"torch.nn.modules.{module}", name): Rule(
        no_arguments,
        state=_recurrent_state if name in _RECURRENT else _module_state,
        state_reads=1,
        data=True,
        new_only=True,
    )
    for module, names in _LAYERS.items()
    for name in names.split()
}
