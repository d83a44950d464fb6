"""Names that no allow-list may hold, each with the reason.

The guard refuses every name that is on no list, so this table adds nothing against an attacker. It is for the reader
of an error message who pastes into ``allow=`` what the file asks for: with these, one name allows everything.
"""

from __future__ import annotations

from typing import Final

_RUNS: Final = "it runs code that it is given"
_CALLS: Final = "it calls what it is given, with arguments from the file"
_READS: Final = "it reads or sets attributes by name, and from any object that reaches everything"
_IMPORTS: Final = "it imports by name"
_LOADS: Final = "it loads another stream, which no guard looks at"
_SYSTEM: Final = "it reaches the operating system: processes, files or the network"
_LATER: Final = "it runs what it is given at some later time"
_CODE: Final = "it builds code objects and functions, which are code from the file"
_SUBIMPORT: Final = (
    "it imports by name: cloudpickle writes it for a bound method, a module, or a builtin type without a name, and a "
    "file that holds one of these loads unguarded alone"
)
_CLASS: Final = "it gives an object another class, which runs code whenever its attributes are asked for"
_INSIDE: Final = "it reaches into the interpreter"
_FRAMEWORK: Final = (
    "it fills whatever object it is given: Keras and TensorFlow objects are written with signatures and functions, and "
    "load unguarded alone; from elsewhere, take a .keras file, or weights"
)

_MODULES: Final = {
    _RUNS: "code codeop pdb bdb doctest timeit trace profile cProfile runpy cmd lib2to3 torch.jit "
    "torch.fx torch._dynamo torch._inductor torch.utils.cpp_extension torch.hub torch.package numpy.f2py "
    "numpy.distutils numpy.testing setuptools distutils pip ensurepip venv idlelib test unittest",
    _CALLS: "functools _functools operator _operator itertools concurrent multiprocessing asyncio threading _thread "
    "contextlib sched",
    _IMPORTS: "importlib imp pkgutil zipimport pydoc zipapp",
    _LOADS: "pickle _pickle pickletools marshal shelve dbm joblib yaml jsonpickle copyreg torch.serialization",
    _SYSTEM: "os posix nt posixpath ntpath subprocess _posixsubprocess pty tty shutil socket socketserver ssl select "
    "selectors http urllib ftplib smtplib poplib imaplib xmlrpc webbrowser antigravity sqlite3 fcntl resource mmap "
    "io _io fileinput tempfile glob linecache signal platform site sysconfig logging.config logging.handlers",
    _LATER: "atexit",
    _CODE: "cloudpickle dill types ast dis inspect",
    _INSIDE: "sys gc ctypes _ctypes cffi numpy.ctypeslib builtins.__dict__ _xxsubinterpreters _interpreters "
    "faulthandler tracemalloc codecs _codecs",
}
_NAMES: Final = {
    _RUNS: "builtins:eval builtins:exec builtins:compile builtins:breakpoint builtins:help",
    _CALLS: "safepickle.rebuild:rebuild_salvaged safepickle.rebuild:rebuild_salvaged_contents "
    "builtins:map builtins:filter builtins:sorted builtins:min builtins:max builtins:iter builtins:zip "
    "builtins:reversed builtins:sum builtins:any builtins:all",
    _READS: "safepickle.rebuild:rebuild_descriptor "
    "builtins:getattr builtins:setattr builtins:delattr builtins:hasattr builtins:vars builtins:dir "
    "builtins:super builtins:property builtins:classmethod builtins:staticmethod",
    _IMPORTS: "safepickle.rebuild:rebuild_global safepickle.rebuild:rebuild_record "
    "builtins:__import__ torch._utils:_import_dotted_name pandas.io.pickle:read_pickle",
    _LOADS: "torch:load torch.storage:_load_from_bytes numpy:load numpy.lib._npyio_impl:load numpy.lib.npyio:load "
    "pandas:read_pickle pandas:eval pandas.core.computation.eval:eval safepickle:load safepickle:loads "
    "safepickle:Unpickler safepickle.loading.unpickler:load safepickle.loading.unpickler:loads",
    _SYSTEM: "safepickle.rebuild:rebuild_file safepickle.rebuild:rebuild_shared_memory "
    "safepickle.rebuild:rebuild_shareable_list "
    "builtins:open builtins:input builtins:print builtins:exit builtins:quit torch:save numpy:save "
    "numpy:fromfile numpy:memmap numpy.memmap:memmap",
    _FRAMEWORK: "safepickle.rebuild:rebuild_keras_container safepickle.rebuild:rebuild_keras_loss_entry "
    "safepickle.rebuild:rebuild_keras_masked safepickle.rebuild:rebuild_keras_node "
    "safepickle.rebuild:rebuild_keras_object safepickle.rebuild:rebuild_keras_tracker "
    "safepickle.rebuild:rebuild_tf_default_strategy safepickle.rebuild:rebuild_tf_function "
    "safepickle.rebuild:rebuild_tf_mutable_table safepickle.rebuild:rebuild_tf_static_table "
    "safepickle.rebuild:restore_keras_attributes safepickle.rebuild:restore_keras_node "
    "safepickle.rebuild:restore_keras_object safepickle.rebuild:restore_keras_set "
    "safepickle.rebuild:restore_keras_tracker safepickle.rebuild:restore_tf_function",
    _LATER: "weakref:finalize safepickle.rebuild:rebuild_logging_handler "
    "safepickle.rebuild:rebuild_blinker_connections "
    "safepickle.rebuild:rebuild_thread safepickle.rebuild:rebuild_finalize "
    "safepickle.rebuild:rebuild_owning_finalize safepickle.rebuild:OwningFinalize "
    "safepickle.rebuild:Owner weakref:_IterationGuard",
    _CODE: "safepickle.rebuild:rebuild_class safepickle.rebuild:rebuild_class_attributes "
    "safepickle.rebuild:rebuild_method builtins:type builtins:__build_class__",
    _CLASS: "safepickle.rebuild:rebuild_torch_parametrizations safepickle.rebuild:rebuild_torch_parametrized",
    _SUBIMPORT: "cloudpickle.cloudpickle:subimport cloudpickle:subimport",
    _INSIDE: "builtins:globals builtins:locals builtins:memoryview builtins:id",
}
_BY_MODULE: Final = {module: reason for reason, modules in _MODULES.items() for module in modules.split()}
_BY_NAME: Final = {name: reason for reason, names in _NAMES.items() for name in names.split()}


def reason_against(module: str, name: str) -> str | None:
    """Return why a name may never be allowed, or None when it may."""
    found = _BY_NAME.get(f"{module}:{name}")
    if found is not None:
        return found
    while module:
        if module in _BY_MODULE:
            return _BY_MODULE[module]
        module = module.rpartition(".")[0]
    return None
