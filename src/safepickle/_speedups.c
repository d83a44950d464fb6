/* The compiled core of safepickle: what the C pickler asks for every object. What a guarded load asks is in _verifier.c.
 *
 * It knows no rule. A class is looked at in Python, once in each walk (`TypeTable.judge`), and what is not plain goes to
 * Python object by object (`TypeTable.reduce`). So the bytes are the same with this module and without it, and
 * whatever is added in Python is heard here.
 *
 *   AddressSet  a set of the addresses of objects, in place of a `set` of ids
 *   State       the attributes of a `Dump` that are read and set for every object
 *   Override    the `reducer_override` of one walk, and the look ahead from its root
 *
 * Two habits keep it safe. A reference that is needed after a call which may run Python code is a strong one: any
 * allocation may start the collector, and that runs finalizers. And no state is global: a module holds its own.
 *
 * It is built for the limited API of CPython 3.11, so that one binary serves every later version. There each type has
 * to be a heap type, and a bound method of one is what the C pickler can call quickest.
 */

#include "_speedups.h"

/* ---- AddressSet: open addressing with linear probing ------------------------------------------------------------- */

/* No object lies at these addresses: objects are aligned. */
#define EMPTY ((uintptr_t)0)
#define DELETED ((uintptr_t)1)
#define SMALLEST_CAPACITY ((size_t)64)

typedef struct {
    PyObject_HEAD
    uintptr_t *slots;
    size_t capacity; /* a power of two, or 0 */
    size_t used;     /* slots that are not EMPTY */
    size_t length;
} AddressSet;

static size_t
first_slot(uintptr_t address, size_t capacity)
{
    /* The lowest bits are the same for all; the multiplication spreads what neighbours have in common. */
    uint64_t spread = (uint64_t)(address >> 4) * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(spread >> 32) & (capacity - 1);
}

static int
AddressSet_has(const AddressSet *self, uintptr_t address)
{
    if (self->length == 0) {
        return 0;
    }
    for (size_t slot = first_slot(address, self->capacity);; slot = (slot + 1) & (self->capacity - 1)) {
        if (self->slots[slot] == address) {
            return 1;
        }
        if (self->slots[slot] == EMPTY) {
            return 0;
        }
    }
}

static int
AddressSet_resize(AddressSet *self, size_t capacity)
{
    uintptr_t *slots = PyMem_Calloc(capacity, sizeof *slots);
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t old = 0; old < self->capacity; old++) {
        uintptr_t address = self->slots[old];
        if (address == EMPTY || address == DELETED) {
            continue;
        }
        size_t slot = first_slot(address, capacity);
        while (slots[slot] != EMPTY) {
            slot = (slot + 1) & (capacity - 1);
        }
        slots[slot] = address;
    }
    PyMem_Free(self->slots);
    self->slots = slots;
    self->capacity = capacity;
    self->used = self->length;
    return 0;
}

/* Returns 1 if the address is new, 0 if it was there, -1 with an exception. */
static int
AddressSet_put(AddressSet *self, uintptr_t address)
{
    if ((self->used + 1) * 2 > self->capacity) {
        size_t capacity = SMALLEST_CAPACITY;
        while (capacity < (self->length + 1) * 4) {
            capacity *= 2;
        }
        if (AddressSet_resize(self, capacity) < 0) {
            return -1;
        }
    }
    size_t slot = first_slot(address, self->capacity);
    while (self->slots[slot] != EMPTY) {
        if (self->slots[slot] == address) {
            return 0;
        }
        slot = (slot + 1) & (self->capacity - 1);
    }
    self->slots[slot] = address;
    self->used++;
    self->length++;
    return 1;
}

static void
AddressSet_drop(AddressSet *self, uintptr_t address)
{
    if (self->length == 0) {
        return;
    }
    for (size_t slot = first_slot(address, self->capacity); self->slots[slot] != EMPTY;
         slot = (slot + 1) & (self->capacity - 1)) {
        if (self->slots[slot] == address) {
            self->slots[slot] = DELETED;
            self->length--;
            return;
        }
    }
}

/* An id as an address; EMPTY with an exception if it is none. */
static uintptr_t
address_of_id(PyObject *id)
{
    uintptr_t address = (uintptr_t)PyLong_AsVoidPtr(id);
    if (PyErr_Occurred()) {
        return EMPTY;
    }
    if (address == EMPTY || address == DELETED) {
        PyErr_SetString(PyExc_ValueError, "no object has this id");
        return EMPTY;
    }
    return address;
}

static PyObject *
AddressSet_add(AddressSet *self, PyObject *id)
{
    uintptr_t address = address_of_id(id);
    if (address == EMPTY || AddressSet_put(self, address) < 0) {
        return NULL;
    }
    return Py_NewRef(Py_None);
}

static PyObject *
AddressSet_discard(AddressSet *self, PyObject *id)
{
    uintptr_t address = address_of_id(id);
    if (address == EMPTY) {
        return NULL;
    }
    AddressSet_drop(self, address);
    return Py_NewRef(Py_None);
}

static PyObject *
AddressSet_update(AddressSet *self, PyObject *ids)
{
    if (Py_TYPE(ids) == Py_TYPE((PyObject *)self)) {
        const AddressSet *other = (AddressSet *)ids;
        for (size_t slot = 0; other != self && slot < other->capacity; slot++) {
            uintptr_t address = other->slots[slot];
            if (address != EMPTY && address != DELETED && AddressSet_put(self, address) < 0) {
                return NULL;
            }
        }
        return Py_NewRef(Py_None);
    }
    PyObject *iterator = PyObject_GetIter(ids);
    if (iterator == NULL) {
        return NULL;
    }
    PyObject *id;
    while ((id = PyIter_Next(iterator)) != NULL) {
        uintptr_t address = address_of_id(id);
        Py_DECREF(id);
        if (address == EMPTY || AddressSet_put(self, address) < 0) {
            break;
        }
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return Py_NewRef(Py_None);
}

static int
AddressSet_contains(AddressSet *self, PyObject *id)
{
    uintptr_t address = address_of_id(id);
    return address == EMPTY ? -1 : AddressSet_has(self, address);
}

static Py_ssize_t
AddressSet_length(AddressSet *self)
{
    return (Py_ssize_t)self->length;
}

/* Iterates over a copy, which nothing that happens meanwhile can change. */
static PyObject *
AddressSet_iterate(AddressSet *self)
{
    PyObject *ids = PyList_New(0);
    for (size_t slot = 0; ids != NULL && slot < self->capacity; slot++) {
        uintptr_t address = self->slots[slot];
        if (address == EMPTY || address == DELETED) {
            continue;
        }
        PyObject *id = PyLong_FromVoidPtr((void *)address);
        if (id == NULL || PyList_Append(ids, id) < 0) {
            Py_CLEAR(ids);
        }
        Py_XDECREF(id);
    }
    if (ids == NULL) {
        return NULL;
    }
    PyObject *iterator = PyObject_GetIter(ids);
    Py_DECREF(ids);
    return iterator;
}

static PyObject *
AddressSet_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"", NULL};
    PyObject *ids = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O:AddressSet", names, &ids)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    AddressSet *self = (AddressSet *)allocate(type, 0);
    if (self != NULL && ids != NULL) {
        PyObject *done = AddressSet_update(self, ids);
        if (done == NULL) {
            Py_DECREF(self);
            return NULL;
        }
        Py_DECREF(done);
    }
    return (PyObject *)self;
}

static void
AddressSet_dealloc(AddressSet *self)
{
    PyMem_Free(self->slots);
    free_object((PyObject *)self);
}

static PyMethodDef AddressSet_methods[] = {
    {"add", (PyCFunction)AddressSet_add, METH_O, PyDoc_STR("Put in the id of an object.")},
    {"discard", (PyCFunction)AddressSet_discard, METH_O, PyDoc_STR("Take out an id, if it is there.")},
    {"update", (PyCFunction)AddressSet_update, METH_O, PyDoc_STR("Put in many ids.")},
    {NULL},
};

static PyType_Slot AddressSet_slots[] = {
    {Py_tp_doc, PyDoc_STR("A set of the ids of objects, each held as an address and not as an int.")},
    {Py_tp_new, AddressSet_new},
    {Py_tp_dealloc, AddressSet_dealloc},
    {Py_tp_methods, AddressSet_methods},
    {Py_tp_iter, AddressSet_iterate},
    {Py_sq_contains, AddressSet_contains},
    {Py_sq_length, AddressSet_length},
    {0, NULL},
};

static PyType_Spec AddressSet_spec = {
    .name = "safepickle._speedups.AddressSet",
    .basicsize = sizeof(AddressSet),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = AddressSet_slots,
};

/* ---- State ------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *visited;
    PyObject *linkable;
    PyObject *expected;
    char tracking;
} State;

static int
State_traverse(State *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->visited);
    Py_VISIT(self->linkable);
    Py_VISIT(self->expected);
    return 0;
}

static int
State_clear(State *self)
{
    Py_CLEAR(self->visited);
    Py_CLEAR(self->linkable);
    Py_CLEAR(self->expected);
    return 0;
}

static void
State_dealloc(State *self)
{
    PyObject_GC_UnTrack(self);
    State_clear(self);
    free_object((PyObject *)self);
}

static PyMemberDef State_members[] = {
    {"visited", T_OBJECT, offsetof(State, visited), 0, NULL},
    {"linkable", T_OBJECT, offsetof(State, linkable), 0, NULL},
    {"expected", T_OBJECT, offsetof(State, expected), 0, NULL},
    {"tracking", T_BOOL, offsetof(State, tracking), 0, NULL},
    {NULL},
};

static PyType_Slot State_slots[] = {
    {Py_tp_doc, PyDoc_STR("The attributes of a dump that are read and set for every object.")},
    {Py_tp_dealloc, State_dealloc},
    {Py_tp_traverse, State_traverse},
    {Py_tp_clear, State_clear},
    {Py_tp_members, State_members},
    {0, NULL},
};

static PyType_Spec State_spec = {
    .name = "safepickle._speedups.State",
    .basicsize = sizeof(State),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = State_slots,
};

/* ---- Override ---------------------------------------------------------------------------------------------------- */

/* What a module holds; an Override borrows it, since its type holds the module. */
typedef struct {
    PyTypeObject *AddressSet;
    PyTypeObject *State;
    PyObject *new_object; /* copyreg.__newobj__ */
    PyObject *reference;  /* weakref.ref */
    PyObject *callback_name;
    PyObject *judge_name;
    PyObject *known_name;
    PyObject *reduce_name;
} Core;

typedef struct {
    PyObject_HEAD
    const Core *core;
    PyObject *table;    /* the TypeTable */
    PyObject *root;     /* of this walk */
    State *known;       /* NULL until the table has one */
    PyObject *verdicts; /* class -> what `judge` says of it, or False after the first instance */
} Override;

/* Notes an object that the C pickler will memoize before it writes what is in it. */
static int
note(Override *self, PyObject *obj)
{
    if (self->known == NULL || self->known->visited == NULL || self->known->visited == Py_None) {
        return 0;
    }
    PyObject *visited = self->known->visited;
    if (Py_TYPE(visited) != self->core->AddressSet) {
        PyErr_SetString(PyExc_TypeError, "the compiled core notes what is visited in an AddressSet");
        return -1;
    }
    return AddressSet_put((AddressSet *)visited, (uintptr_t)obj);
}

/* The attributes of an instance of a plain class: a new reference to its dict; NULL, mostly without an exception, if the
 * instance has something of its own to say about how it is pickled. */
static PyObject *
plain_attributes(PyObject *obj)
{
    PyObject *attributes = PyObject_GenericGetDict(obj, NULL);
    if (attributes == NULL || !PyDict_CheckExact(attributes)) {
        Py_XDECREF(attributes);
        if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
        }
        return NULL;
    }
    Py_ssize_t position = 0;
    PyObject *name;
    while (PyDict_Next(attributes, &position, &name, NULL)) {
        /* A name such as __reduce_ex__ or __getstate__ is heard by the C pickler, in an instance, too. */
        if (!PyUnicode_CheckExact(name) || (PyUnicode_GetLength(name) > 1 && PyUnicode_ReadChar(name, 0) == '_'
                                            && PyUnicode_ReadChar(name, 1) == '_')) {
            Py_DECREF(attributes);
            return NULL;
        }
    }
    return attributes;
}

/* What `object.__reduce_ex__` makes of an instance of a plain class; NULL without an exception to leave it to that. */
static PyObject *
reduce_plain(Override *self, PyObject *obj, PyObject *arguments)
{
    PyObject *attributes = plain_attributes(obj);
    if (attributes == NULL) {
        return NULL;
    }
    PyObject *state = PyDict_Size(attributes) ? attributes : Py_None;
    PyObject *value = PyTuple_Pack(3, self->core->new_object, arguments, state);
    Py_DECREF(attributes);
    return value;
}

/* Whether the instances of a class are in the memo before anything else of them is written. */
static int
is_ordinary(PyObject *verdict)
{
    return verdict == Py_NotImplemented || PyTuple_CheckExact(verdict);
}

/* A new reference to what a `weakref.ref` refers to. NULL, before 3.13 None, where it is dead. */
static PyObject *
referent_of(PyObject *reference)
{
    PyObject *referent;
#if Py_LIMITED_API + 0 >= 0x030D0000
    (void)PyWeakref_GetRef(reference, &referent);
#else
    referent = PyWeakref_GetObject(reference); /* Borrowed, and nothing has run since. */
    Py_XINCREF(referent);
#endif
    return referent;
}

/* What `Dump.decide` and `reduce_weakref` make of a reference without callback to an ordinary object that is known to be
 * kept; NULL, mostly without an exception, for any other. */
static PyObject *
reduce_reference(Override *self, PyObject *reference)
{
    State *known = self->known;
    if (known == NULL || !known->tracking || known->linkable == NULL
        || Py_TYPE(known->linkable) != self->core->AddressSet) {
        return NULL;
    }
    PyObject *referent = referent_of(reference);
    if (referent == NULL) {
        return NULL;
    }
    if (!AddressSet_has((AddressSet *)known->linkable, (uintptr_t)referent)) {
        Py_DECREF(referent);
        return NULL;
    }
    PyObject *verdict = PyDict_GetItemWithError(self->verdicts, (PyObject *)Py_TYPE(referent));
    if (verdict == NULL || !is_ordinary(verdict)) {
        Py_DECREF(referent);
        return NULL;
    }
    PyObject *value = NULL;
    PyObject *callback = PyObject_GetAttr(reference, self->core->callback_name);
    if (callback == Py_None) {
        PyObject *arguments = PyTuple_Pack(1, referent);
        if (arguments != NULL) {
            value = PyTuple_Pack(2, self->core->reference, arguments);
            Py_DECREF(arguments);
        }
    }
    Py_XDECREF(callback);
    if (value == NULL) {
        Py_DECREF(referent);
        return NULL;
    }
    PyObject *before = known->expected;
    known->expected = referent;
    Py_XDECREF(before);
    return value;
}

/* Asks Python about an object, and learns of the dump that it may have begun. */
static PyObject *
reduce_in_python(Override *self, PyObject *obj)
{
    PyObject *value = PyObject_CallMethodObjArgs(self->table, self->core->reduce_name, obj, NULL);
    if (value == NULL || self->known != NULL) {
        return value;
    }
    PyObject *known = PyObject_GetAttr(self->table, self->core->known_name);
    if (known == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    if (self->known == NULL && PyObject_TypeCheck(known, self->core->State)) {
        self->known = (State *)known;
    }
    else {
        Py_DECREF(known);
    }
    return value;
}

/* What Python says of a class, a new reference: a tuple of the class, of a plain one; NotImplemented, where an instance
 * is to be noted and left to the C pickler; weakref.ref, for itself; None, where Python is to be asked each time. */
static PyObject *
judge(Override *self, PyTypeObject *cls)
{
    PyObject *verdict = PyObject_CallMethodObjArgs(self->table, self->core->judge_name, (PyObject *)cls, NULL);
    if (verdict != NULL && PyDict_SetItem(self->verdicts, (PyObject *)cls, verdict) < 0) {
        Py_CLEAR(verdict);
    }
    return verdict;
}

/* The same from memory, or NULL without an exception. Only from the second instance on is a class worth a judgement. */
static PyObject *
recall(Override *self, PyTypeObject *cls)
{
    PyObject *verdict = PyDict_GetItemWithError(self->verdicts, (PyObject *)cls);
    if (verdict == Py_False) {
        return judge(self, cls);
    }
    if (verdict != NULL) {
        return Py_NewRef(verdict);
    }
    if (!PyErr_Occurred()) {
        PyDict_SetItem(self->verdicts, (PyObject *)cls, Py_False);
    }
    return NULL;
}

static PyObject *
Override_reduce(Override *self, PyObject *obj)
{
    PyObject *verdict = recall(self, Py_TYPE(obj));
    PyObject *value = NULL;
    if (verdict != NULL && is_ordinary(verdict)) {
        if (note(self, obj) >= 0) {
            value = verdict == Py_NotImplemented ? NULL : reduce_plain(self, obj, verdict);
            if (value == NULL && !PyErr_Occurred()) {
                value = Py_NewRef(Py_NotImplemented);
            }
        }
    }
    else if (verdict != NULL && verdict == self->core->reference) {
        value = reduce_reference(self, obj);
    }
    Py_XDECREF(verdict);
    if (value == NULL && !PyErr_Occurred()) {
        value = reduce_in_python(self, obj);
    }
    return value;
}

/* ---- The look ahead ---------------------------------------------------------------------------------------------- */

/* More objects than this within each other, and nobody can tell whether the C pickler comes to the innermost one. */
#define DEEPEST 100

/* What is still to be looked into, the next one last. It is held: what is judged in between runs Python code. */
typedef struct {
    PyObject *obj;
    int depth;
} Task;

typedef struct {
    Task *tasks;
    size_t length;
    size_t capacity;
    int depth; /* of what is pushed now */
} Agenda;

static int
Agenda_push(Agenda *self, PyObject *obj)
{
    if (PyUnicode_CheckExact(obj) || PyLong_CheckExact(obj) || PyFloat_CheckExact(obj) || PyBool_Check(obj)
        || obj == Py_None || PyBytes_CheckExact(obj)) {
        return 0;
    }
    if (self->length == self->capacity) {
        size_t capacity = self->capacity ? self->capacity * 2 : 256;
        Task *tasks = PyMem_Realloc(self->tasks, capacity * sizeof *tasks);
        if (tasks == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->tasks = tasks;
        self->capacity = capacity;
    }
    self->tasks[self->length++] = (Task){Py_NewRef(obj), self->depth};
    return 0;
}

/* Turns round what was pushed last, so that the first of it comes next, as it does with the C pickler. */
static void
Agenda_turn(Agenda *self, size_t first)
{
    for (size_t last = self->length; first + 1 < last; first++) {
        Task task = self->tasks[first];
        self->tasks[first] = self->tasks[--last];
        self->tasks[last] = task;
    }
}

static int
push_pairs(Agenda *agenda, PyObject *dict)
{
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (Agenda_push(agenda, key) < 0 || Agenda_push(agenda, value) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
push_members(Agenda *agenda, PyObject *set)
{
    PyObject *iterator = PyObject_GetIter(set);
    PyObject *member;
    while (iterator != NULL && (member = PyIter_Next(iterator)) != NULL) {
        int pushed = Agenda_push(agenda, member);
        Py_DECREF(member);
        if (pushed < 0) {
            break;
        }
    }
    Py_XDECREF(iterator);
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        /* A finalizer has changed the set. What was reached is reached. */
        PyErr_Clear();
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Puts what `obj` certainly leads to on the agenda. Returns 0 if nobody can tell from here where it leads. */
static int
look_into(Override *self, Agenda *agenda, PyObject *obj)
{
    if (PyList_CheckExact(obj)) {
        for (Py_ssize_t index = 0; index < PyList_Size(obj); index++) {
            if (Agenda_push(agenda, PyList_GetItem(obj, index)) < 0) {
                return -1;
            }
        }
        return 1;
    }
    if (PyTuple_CheckExact(obj)) {
        for (Py_ssize_t index = 0; index < PyTuple_Size(obj); index++) {
            if (Agenda_push(agenda, PyTuple_GetItem(obj, index)) < 0) {
                return -1;
            }
        }
        return 1;
    }
    if (PyDict_CheckExact(obj)) {
        return push_pairs(agenda, obj) < 0 ? -1 : 1;
    }
    if (Py_IS_TYPE(obj, &PySet_Type) || Py_IS_TYPE(obj, &PyFrozenSet_Type)) {
        return push_members(agenda, obj) < 0 ? -1 : 1;
    }
    PyTypeObject *cls = Py_TYPE(obj);
    PyObject *verdict = PyDict_GetItemWithError(self->verdicts, (PyObject *)cls);
    verdict = verdict != NULL && verdict != Py_False ? Py_NewRef(verdict) : PyErr_Occurred() ? NULL : judge(self, cls);
    if (verdict == NULL) {
        return -1;
    }
    PyObject *attributes = PyTuple_CheckExact(verdict) ? plain_attributes(obj) : NULL;
    Py_DECREF(verdict);
    if (attributes == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int pushed = push_pairs(agenda, attributes);
    Py_DECREF(attributes);
    return pushed < 0 ? -1 : 1;
}

/* Looks into all that is on the agenda, in the order of the C pickler. Returns 0 if it nests too deeply. */
static int
follow(Override *self, Agenda *agenda, AddressSet *reached)
{
    while (agenda->length > 0) {
        Task task = agenda->tasks[--agenda->length];
        int outcome = task.depth > DEEPEST ? 0 : AddressSet_put(reached, (uintptr_t)task.obj);
        if (outcome > 0) {
            size_t first = agenda->length;
            agenda->depth = task.depth + 1;
            outcome = look_into(self, agenda, task.obj);
            Agenda_turn(agenda, first);
            if (outcome == 0) {
                AddressSet_drop(reached, (uintptr_t)task.obj);
            }
        }
        Py_DECREF(task.obj);
        if (outcome < 0 || task.depth > DEEPEST) {
            return outcome;
        }
    }
    return 1;
}

static PyObject *
Override_look_ahead(Override *self, PyObject *Py_UNUSED(ignored))
{
    AddressSet *reached = (AddressSet *)PyObject_CallNoArgs((PyObject *)self->core->AddressSet);
    if (reached == NULL) {
        return NULL;
    }
    Agenda agenda = {NULL, 0, 0, 0};
    int outcome = Agenda_push(&agenda, self->root);
    if (outcome >= 0) {
        outcome = follow(self, &agenda, reached);
    }
    while (agenda.length > 0) {
        Py_DECREF(agenda.tasks[--agenda.length].obj);
    }
    PyMem_Free(agenda.tasks);
    if (outcome > 0) {
        return (PyObject *)reached;
    }
    Py_DECREF(reached);
    return outcome < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Override_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *table, *root;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Override() takes no keywords");
        return NULL;
    }
    if (!PyArg_UnpackTuple(args, "Override", 2, 2, &table, &root)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Override *self = (Override *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->core = PyType_GetModuleState(type);
    self->table = Py_NewRef(table);
    self->root = Py_NewRef(root);
    self->verdicts = PyDict_New();
    if (self->core == NULL || self->verdicts == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Override_traverse(Override *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->table);
    Py_VISIT(self->root);
    Py_VISIT(self->known);
    Py_VISIT(self->verdicts);
    return 0;
}

static int
Override_clear(Override *self)
{
    Py_CLEAR(self->table);
    Py_CLEAR(self->root);
    Py_CLEAR(self->known);
    Py_CLEAR(self->verdicts);
    return 0;
}

static void
Override_dealloc(Override *self)
{
    PyObject_GC_UnTrack(self);
    Override_clear(self);
    free_object((PyObject *)self);
}

static PyMethodDef Override_methods[] = {
    {"reduce", (PyCFunction)Override_reduce, METH_O,
     PyDoc_STR("Return the reduce value of an object, or NotImplemented, as TypeTable.reduce does.")},
    {"look_ahead", (PyCFunction)Override_look_ahead, METH_NOARGS,
     PyDoc_STR("Return the ids of what the C pickler will certainly come to from the root, or None if it is too deep.")},
    {NULL},
};

static PyType_Slot Override_slots[] = {
    {Py_tp_doc, PyDoc_STR("Override(table, root): what the C pickler calls in one walk for all but exact builtins.")},
    {Py_tp_new, Override_new},
    {Py_tp_dealloc, Override_dealloc},
    {Py_tp_traverse, Override_traverse},
    {Py_tp_clear, Override_clear},
    {Py_tp_methods, Override_methods},
    {0, NULL},
};

static PyType_Spec Override_spec = {
    .name = "safepickle._speedups.Override",
    .basicsize = sizeof(Override),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Override_slots,
};

/* ---- The module -------------------------------------------------------------------------------------------------- */

static PyObject *
attribute_of_module(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *found = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    Py_XDECREF(module);
    return found;
}

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type);
    }
    return (PyTypeObject *)type;
}

static int
execute(PyObject *module)
{
    Core *core = PyModule_GetState(module);
    PyTypeObject *override = NULL, *verifier = NULL;
    int failed = (core->AddressSet = add_type(module, &AddressSet_spec)) == NULL
                 || (core->State = add_type(module, &State_spec)) == NULL
                 || (override = add_type(module, &Override_spec)) == NULL
                 || (verifier = add_type(module, &safepickle_Verifier_spec)) == NULL
                 || (core->new_object = attribute_of_module("copyreg", "__newobj__")) == NULL
                 || (core->reference = attribute_of_module("weakref", "ref")) == NULL
                 || (core->callback_name = PyUnicode_InternFromString("__callback__")) == NULL
                 || (core->judge_name = PyUnicode_InternFromString("judge")) == NULL
                 || (core->known_name = PyUnicode_InternFromString("known")) == NULL
                 || (core->reduce_name = PyUnicode_InternFromString("reduce")) == NULL;
    Py_XDECREF((PyObject *)override);
    Py_XDECREF((PyObject *)verifier);
    return failed ? -1 : 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Core *core = PyModule_GetState(module);
    Py_VISIT(core->AddressSet);
    Py_VISIT(core->State);
    Py_VISIT(core->new_object);
    Py_VISIT(core->reference);
    return 0;
}

static int
module_clear(PyObject *module)
{
    Core *core = PyModule_GetState(module);
    Py_CLEAR(core->AddressSet);
    Py_CLEAR(core->State);
    Py_CLEAR(core->new_object);
    Py_CLEAR(core->reference);
    Py_CLEAR(core->callback_name);
    Py_CLEAR(core->judge_name);
    Py_CLEAR(core->known_name);
    Py_CLEAR(core->reduce_name);
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "safepickle._speedups",
    .m_doc = PyDoc_STR("The compiled core: what the C pickler asks for every object."),
    .m_size = sizeof(Core),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&module_definition);
}
