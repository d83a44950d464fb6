/* Which pickles need no rule of the guard.
 *
 * A Verifier reads a whole pickle and builds nothing. It follows what lies on the stack and in the memo by kind alone,
 * and takes only what the machine would take without asking a rule: numbers, text, bytes, exact containers with keys
 * that are cheap to hash, instances of classes that Python has called plain, and weak references to these. What it
 * takes can be given to the C unpickler. Whatever it does not know it leaves to the machine, which alone decides and
 * makes errors. So it may be stricter than the machine in anything, and never more generous.
 *
 * It is given the figures of the guard, and knows none.
 */

#include "_speedups.h"
#include <string.h>

/* ---- What is known of a value ------------------------------------------------------------------------------------ */

enum kind {
    NONE,
    NUMBER, /* a boolean, or an integer of at most seven bytes: in a dict it never meets another of the same hash */
    TEXT,
    BYTES,
    SCALAR, /* any other value that holds no others */
    TUPLE,
    LIST,
    DICT,
    SET,
    FROZENSET,
    CLASS,
    INSTANCE,
    REFERENCE_TYPE,
    REFERENCE,
};

/* Eight bits of kind, eight for how deep tuples nest in it, and above these the detail: where the opcode of a text or
 * of bytes stands, which dict it is, what a tuple holds, or whether a class and its instances take weak references. */
typedef uint64_t Value;

static Value
value_of(enum kind kind, unsigned level, uint64_t detail)
{
    return (Value)kind | (Value)level << 8 | (Value)detail << 16;
}

static enum kind
kind_of(Value value)
{
    return (enum kind)(value & 0xFF);
}

static unsigned
level_of(Value value)
{
    return (value >> 8) & 0xFF;
}

static uint64_t
detail_of(Value value)
{
    return value >> 16;
}

typedef struct {
    uint64_t *items;
    size_t length;
    size_t capacity;
} Array;

static int
Array_push(Array *self, uint64_t item)
{
    if (self->length == self->capacity) {
        size_t capacity = self->capacity ? self->capacity * 2 : 64;
        uint64_t *items = PyMem_Realloc(self->items, capacity * sizeof *items);
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->items = items;
        self->capacity = capacity;
    }
    self->items[self->length++] = item;
    return 1;
}

/* ---- The verifier ------------------------------------------------------------------------------------------------ */

/* What a step comes to; a negative number is an exception. */
enum outcome { REFUSED, TAKEN, FINISHED, CUT_OFF };

/* What is known of a dict: how many items were set, at most, and whether it can be no state. */
#define NO_STATE ((uint64_t)1)
#define ONE_ITEM ((uint64_t)2)

/* What a tuple holds. */
enum { NOTHING, ANYTHING, ONE_REFERENT };

#define NO_FRAME SIZE_MAX

/* More levels than this of tuples do not fit a Value. */
#define DEEPEST 200

typedef struct {
    PyObject_HEAD
    PyObject *find;      /* find(module, name, protocol): a plain class, weakref.ref, or None */
    PyObject *reference; /* weakref.ref */
    PyObject *names;     /* (module, name) -> what `find` has said */
    Array stack;
    Array marks; /* how long the stack was */
    Array memo;
    Array dicts;
    size_t start;
    size_t position;
    size_t frame_end; /* NO_FRAME where none is open */
    uint64_t spent;
    uint64_t odd_keys; /* those whose hashes the machine would count */
    int protocol;
    char is_wide; /* whether there was an integer that makes the machine count the hashes of all integers */
    struct {
        Py_ssize_t floor, per_byte, argument, attribute, equal_hashes, marks, levels, payload;
    } limits;
} Verifier;

static int
push(Verifier *self, enum kind kind, unsigned level, uint64_t detail)
{
    return Array_push(&self->stack, value_of(kind, level, detail));
}

/* How many values lie above the last mark. */
static size_t
available(const Verifier *self)
{
    size_t below = self->marks.length ? self->marks.items[self->marks.length - 1] : 0;
    return self->stack.length - below;
}

/* Whether the value below `above` others on the stack is there, and of a kind. */
static int
is_kind(const Verifier *self, size_t above, enum kind kind)
{
    return available(self) > above && kind_of(self->stack.items[self->stack.length - 1 - above]) == kind;
}

/* Takes the values above the last mark off the stack, where they lie until the next is pushed. */
static int
close_mark(Verifier *self, const Value **items, size_t *count)
{
    if (self->marks.length == 0) {
        return REFUSED;
    }
    size_t below = self->marks.items[--self->marks.length];
    *items = self->stack.items + below;
    *count = self->stack.length - below;
    self->stack.length = below;
    return TAKEN;
}

/* The machine grants at least this much before it carries out the opcode at the position. */
static int
spend(Verifier *self, uint64_t amount)
{
    self->spent += amount;
    uint64_t read = self->position - self->start;
    return self->spent <= (uint64_t)self->limits.floor + (uint64_t)self->limits.per_byte * read ? TAKEN : REFUSED;
}

static inline uint64_t
little_endian(const unsigned char *bytes, size_t width)
{
    uint64_t number = 0;
    for (size_t index = 0; index < width; index++) {
        number |= (uint64_t)bytes[index] << (8 * index);
    }
    return number;
}

/* ---- Opcodes ----------------------------------------------------------------------------------------------------- */

enum {
    MARK = '(', STOP = '.', BININT = 'J', BININT1 = 'K', BININT2 = 'M', NONE_ = 'N', BINUNICODE = 'X', APPEND = 'a',
    BUILD = 'b', GLOBAL = 'c', EMPTY_DICT = '}', APPENDS = 'e', BINGET = 'h', LONG_BINGET = 'j', EMPTY_LIST = ']',
    BINPUT = 'q', LONG_BINPUT = 'r', REDUCE = 'R', SETITEM = 's', TUPLE_ = 't', EMPTY_TUPLE = ')', SETITEMS = 'u',
    BINFLOAT = 'G', BINBYTES = 'B', SHORT_BINBYTES = 'C', PROTO = 0x80, NEWOBJ = 0x81, TUPLE1 = 0x85, TUPLE2 = 0x86,
    TUPLE3 = 0x87, NEWTRUE = 0x88, NEWFALSE = 0x89, LONG1 = 0x8A, SHORT_BINUNICODE = 0x8C, BINUNICODE8 = 0x8D,
    BINBYTES8 = 0x8E, EMPTY_SET = 0x8F, ADDITEMS = 0x90, FROZENSET_ = 0x91, STACK_GLOBAL = 0x93, MEMOIZE = 0x94,
    FRAME = 0x95, BYTEARRAY8 = 0x96,
};

/* How many bytes of argument an opcode has; with HAS_PAYLOAD they are the length of what follows. */
#define WIDTH 15
#define HAS_PAYLOAD 16
static const unsigned char LAYOUT[256] = {
    [BININT1] = 1, [BININT2] = 2, [BININT] = 4, [BINFLOAT] = 8, [BINGET] = 1, [LONG_BINGET] = 4, [BINPUT] = 1,
    [LONG_BINPUT] = 4, [PROTO] = 1, [FRAME] = 8, [LONG1] = HAS_PAYLOAD | 1, [SHORT_BINUNICODE] = HAS_PAYLOAD | 1,
    [BINUNICODE] = HAS_PAYLOAD | 4, [BINUNICODE8] = HAS_PAYLOAD | 8, [SHORT_BINBYTES] = HAS_PAYLOAD | 1,
    [BINBYTES] = HAS_PAYLOAD | 4, [BINBYTES8] = HAS_PAYLOAD | 8, [BYTEARRAY8] = HAS_PAYLOAD | 8,
};

/* The payload of the text or the bytes that stand in `data` at the detail of a value. */
static const char *
payload_of(const unsigned char *data, Value value, uint64_t *length)
{
    const unsigned char *opcode = data + detail_of(value);
    size_t width = LAYOUT[*opcode] & WIDTH;
    *length = little_endian(opcode + 1, width);
    return (const char *)opcode + 1 + width;
}

/* ---- Keys, and what they cost ------------------------------------------------------------------------------------ */

/* Charges for a mixture of keys: of these the machine compares each with those of equal hash. Here all are taken for
 * equal. */
static int
spend_on_odd_keys(Verifier *self, const unsigned char *data, const Value *items, size_t count, size_t stride)
{
    uint64_t most = (uint64_t)self->limits.equal_hashes;
    for (size_t index = 0; index < count; index += stride) {
        uint64_t length = 0;
        if (kind_of(items[index]) == TEXT || kind_of(items[index]) == BYTES) {
            payload_of(data, items[index], &length);
        }
        if (++self->odd_keys > most || !spend(self, (most + 1) * (length + 1))) {
            return REFUSED;
        }
    }
    return TAKEN;
}

/* Charges what the machine charges for hashing every `stride`-th of `items`, or more. `*no_state` is set where one can
 * be no name of an attribute: the machine refuses dunders. */
static int
spend_on_keys(Verifier *self, const unsigned char *data, const Value *items, size_t count, size_t stride,
              uint64_t *no_state)
{
    size_t texts = 0, numbers = 0, keys = count / stride;
    for (size_t index = 0; index < count; index += stride) {
        enum kind kind = kind_of(items[index]);
        if (kind == TEXT || kind == BYTES) {
            uint64_t length;
            const char *text = payload_of(data, items[index], &length);
            if (!spend(self, length)) {
                return REFUSED;
            }
            texts++;
            *no_state |= kind == BYTES || (length > 1 && text[0] == '_' && text[1] == '_') ? NO_STATE : 0;
        }
        else if (kind == NUMBER || kind == NONE) {
            numbers += kind == NUMBER;
            *no_state = NO_STATE;
        }
        else {
            return REFUSED;
        }
    }
    if (texts == keys || (numbers == keys && !self->is_wide)) {
        return TAKEN;
    }
    return spend_on_odd_keys(self, data, items, count, stride);
}

static int
set_items(Verifier *self, const unsigned char *data, const Value *items, size_t count)
{
    uint64_t no_state = 0;
    if (count % 2 || !is_kind(self, 0, DICT) || !spend_on_keys(self, data, items, count, 2, &no_state)) {
        return REFUSED;
    }
    uint64_t *dict = self->dicts.items + detail_of(self->stack.items[self->stack.length - 1]);
    *dict = (*dict + count / 2 * ONE_ITEM) | no_state;
    return TAKEN;
}

/* ---- Containers, names and instances ----------------------------------------------------------------------------- */

static int
make_tuple(Verifier *self, const Value *items, size_t count)
{
    unsigned level = 0;
    for (size_t index = 0; index < count; index++) {
        level = level_of(items[index]) > level ? level_of(items[index]) : level;
    }
    if (level >= DEEPEST || level >= (size_t)self->limits.levels) {
        return REFUSED;
    }
    int is_referent = count == 1 && kind_of(items[0]) == INSTANCE && detail_of(items[0]);
    return push(self, TUPLE, level + 1, count == 0 ? NOTHING : is_referent ? ONE_REFERENT : ANYTHING);
}

/* A tuple of the last values on the stack. */
static int
make_short_tuple(Verifier *self, size_t count)
{
    if (available(self) < count) {
        return REFUSED;
    }
    self->stack.length -= count;
    return make_tuple(self, self->stack.items + self->stack.length, count);
}

/* What goes to a mark: the items of a container, or of one that is made of them. */
static int
to_mark(Verifier *self, const unsigned char *data, unsigned char code)
{
    const Value *items;
    size_t count;
    uint64_t no_state = 0;
    if (!close_mark(self, &items, &count)) {
        return REFUSED;
    }
    switch (code) {
    case TUPLE_:
        return make_tuple(self, items, count);
    case APPENDS:
        return is_kind(self, 0, LIST);
    case SETITEMS:
        return set_items(self, data, items, count);
    case ADDITEMS:
        return is_kind(self, 0, SET) && spend_on_keys(self, data, items, count, 1, &no_state);
    default:
        return spend_on_keys(self, data, items, count, 1, &no_state) ? push(self, FROZENSET, 1, 0) : REFUSED;
    }
}

/* What stands for a name, a borrowed reference: None if it needs a rule; NULL with an exception. */
static PyObject *
find_name(Verifier *self, PyObject *module, PyObject *name, PyObject *pair)
{
    PyObject *found = PyDict_GetItemWithError(self->names, pair);
    if (found != NULL || PyErr_Occurred()) {
        return found;
    }
    found = PyObject_CallFunction(self->find, "OOi", module, name, self->protocol);
    if (found == NULL || found == Py_None || PyDict_SetItem(self->names, pair, found) == 0) {
        Py_XDECREF(found); /* None is always there, and the rest is held by the dict. */
        return found;
    }
    Py_DECREF(found);
    return NULL;
}

static int
push_found(Verifier *self, PyObject *found)
{
    if (found == Py_None) {
        return REFUSED;
    }
    if (found == self->reference) {
        return push(self, REFERENCE_TYPE, 0, 0);
    }
    /* The cache of attributes keeps each string by which it was asked, so it is asked by one. */
    PyObject *attribute = PyUnicode_InternFromString("__weakrefoffset__");
    PyObject *offset = attribute == NULL ? NULL : PyObject_GetAttr(found, attribute);
    Py_XDECREF(attribute);
    int takes_references = offset == NULL ? -1 : PyObject_IsTrue(offset);
    Py_XDECREF(offset);
    return takes_references < 0 ? -1 : push(self, CLASS, 0, (uint64_t)takes_references);
}

static int
push_name(Verifier *self, const char *module, uint64_t module_length, const char *name, uint64_t name_length)
{
    PyObject *pair = Py_BuildValue("(s#s#)", module, (Py_ssize_t)module_length, name, (Py_ssize_t)name_length);
    if (pair == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            return -1;
        }
        PyErr_Clear();
        return REFUSED;
    }
    PyObject *found = find_name(self, PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1), pair);
    Py_DECREF(pair);
    return found == NULL ? -1 : push_found(self, found);
}

static int
stack_global(Verifier *self, const unsigned char *data)
{
    if (!is_kind(self, 0, TEXT) || !is_kind(self, 1, TEXT)) {
        return REFUSED;
    }
    uint64_t module_length, name_length;
    self->stack.length -= 2;
    const char *module = payload_of(data, self->stack.items[self->stack.length], &module_length);
    const char *name = payload_of(data, self->stack.items[self->stack.length + 1], &name_length);
    return push_name(self, module, module_length, name, name_length);
}

static int
make_instance(Verifier *self)
{
    if (!is_kind(self, 0, TUPLE) || !is_kind(self, 1, CLASS)
        || detail_of(self->stack.items[self->stack.length - 1]) != NOTHING) {
        return REFUSED;
    }
    self->stack.length -= 2;
    return push(self, INSTANCE, 1, detail_of(self->stack.items[self->stack.length]));
}

static int
make_reference(Verifier *self)
{
    if (!is_kind(self, 0, TUPLE) || !is_kind(self, 1, REFERENCE_TYPE)
        || detail_of(self->stack.items[self->stack.length - 1]) != ONE_REFERENT
        || !spend(self, (uint64_t)self->limits.argument)) {
        return REFUSED;
    }
    self->stack.length -= 2;
    return push(self, REFERENCE, 2, 0);
}

static int
set_state(Verifier *self)
{
    if (!is_kind(self, 0, DICT) || !is_kind(self, 1, INSTANCE)) {
        return REFUSED;
    }
    uint64_t dict = self->dicts.items[detail_of(self->stack.items[--self->stack.length])];
    return dict & NO_STATE ? REFUSED : spend(self, (uint64_t)self->limits.attribute * (dict / ONE_ITEM));
}

static int
make_dict(Verifier *self)
{
    return Array_push(&self->dicts, 0) < 0 ? -1 : push(self, DICT, 0, self->dicts.length - 1);
}

static int
remember(Verifier *self, uint64_t index)
{
    if (index != self->memo.length || available(self) == 0) {
        return REFUSED;
    }
    return Array_push(&self->memo, self->stack.items[self->stack.length - 1]);
}

static int
recall(Verifier *self, uint64_t index)
{
    return index < self->memo.length ? Array_push(&self->stack, self->memo.items[index]) : REFUSED;
}

static int
open_frame(Verifier *self, uint64_t length, size_t behind)
{
    if (self->frame_end != NO_FRAME || length == 0 || length > PY_SSIZE_T_MAX - (uint64_t)behind) {
        return REFUSED;
    }
    self->frame_end = behind + (size_t)length;
    return TAKEN;
}

static int
integer(Verifier *self, uint64_t length)
{
    self->is_wide |= length > 15;
    return push(self, length < 8 ? NUMBER : SCALAR, 0, 0);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* Carries out the opcode at `self->position`, whose argument is whole. `behind` is the position behind it. */
static int
carry_out(Verifier *self, const unsigned char *data, uint64_t argument, size_t behind)
{
    unsigned char code = data[self->position];
    switch (code) {
    case MEMOIZE:
        return remember(self, self->memo.length);
    case BINPUT: case LONG_BINPUT:
        return remember(self, argument);
    case BINGET: case LONG_BINGET:
        return recall(self, argument);
    case BININT1: case BININT2: case BININT: case NEWTRUE: case NEWFALSE:
        return push(self, NUMBER, 0, 0);
    case LONG1:
        return integer(self, argument);
    case NONE_:
        return push(self, NONE, 0, 0);
    case BINFLOAT: case BYTEARRAY8:
        return push(self, SCALAR, 0, 0);
    case SHORT_BINUNICODE: case BINUNICODE: case BINUNICODE8:
        return push(self, TEXT, 0, self->position);
    case SHORT_BINBYTES: case BINBYTES: case BINBYTES8:
        return push(self, BYTES, 0, self->position);
    case EMPTY_TUPLE: case TUPLE1: case TUPLE2: case TUPLE3:
        return make_short_tuple(self, code == EMPTY_TUPLE ? 0 : (size_t)(code - TUPLE1 + 1));
    case EMPTY_LIST:
        return push(self, LIST, 0, 0);
    case EMPTY_DICT:
        return make_dict(self);
    case EMPTY_SET:
        return push(self, SET, 0, 0);
    case MARK:
        return self->marks.length < (size_t)self->limits.marks ? Array_push(&self->marks, self->stack.length) : REFUSED;
    case TUPLE_: case APPENDS: case SETITEMS: case ADDITEMS: case FROZENSET_:
        return to_mark(self, data, code);
    case APPEND:
        return is_kind(self, 1, LIST) ? (self->stack.length--, TAKEN) : REFUSED;
    case SETITEM:
        if (available(self) < 3) {
            return REFUSED;
        }
        self->stack.length -= 2;
        return set_items(self, data, self->stack.items + self->stack.length, 2);
    case STACK_GLOBAL:
        return stack_global(self, data);
    case NEWOBJ:
        return make_instance(self);
    case REDUCE:
        return make_reference(self);
    case BUILD:
        return set_state(self);
    case FRAME:
        return open_frame(self, argument, behind);
    case PROTO:
        self->protocol = (int)argument;
        return self->position == self->start && argument <= 5;
    case STOP:
        return self->marks.length == 0 && self->stack.length == 1
                       && (self->frame_end == NO_FRAME || self->frame_end == behind)
                   ? FINISHED
                   : REFUSED;
    default:
        return REFUSED;
    }
}

/* A name in two lines of text. */
static int
global(Verifier *self, const unsigned char *data, size_t end, size_t *behind)
{
    const char *module = (const char *)data + self->position + 1, *last = (const char *)data + end;
    const char *module_end = memchr(module, '\n', (size_t)(last - module));
    const char *name = module_end == NULL ? NULL : module_end + 1;
    const char *name_end = name == NULL ? NULL : memchr(name, '\n', (size_t)(last - name));
    if (name_end == NULL) {
        return CUT_OFF;
    }
    *behind = (size_t)(name_end + 1 - (const char *)data);
    if (*behind > self->frame_end) {
        return REFUSED;
    }
    return push_name(self, module, (uint64_t)(module_end - module), name, (uint64_t)(name_end - name));
}

/* Carries out the next opcode, unless `data` ends before it does. */
static int
step(Verifier *self, const unsigned char *data, size_t end)
{
    if (self->position == self->frame_end) {
        self->frame_end = NO_FRAME;
    }
    if (self->position >= end) {
        return CUT_OFF;
    }
    unsigned char code = data[self->position];
    size_t behind = self->position + 1;
    int outcome;
    if (code == GLOBAL) {
        outcome = global(self, data, end, &behind);
    }
    else {
        size_t width = LAYOUT[code] & WIDTH;
        if (end - behind < width) {
            return CUT_OFF;
        }
        uint64_t argument = little_endian(data + behind, width);
        behind += width;
        if (LAYOUT[code] & HAS_PAYLOAD) {
            if (argument > (uint64_t)self->limits.payload) {
                return REFUSED;
            }
            if (end - behind < argument) {
                return CUT_OFF;
            }
            behind += (size_t)argument;
        }
        if (behind > self->frame_end) {
            return REFUSED;
        }
        outcome = carry_out(self, data, argument, behind);
    }
    if (outcome == TAKEN || outcome == FINISHED) {
        self->position = behind;
    }
    return outcome;
}

static PyObject *
Verifier_read(Verifier *self, PyObject *bytes)
{
    char *buffer;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(bytes, &buffer, &length) < 0) {
        return NULL;
    }
    if ((size_t)length < self->position) {
        PyErr_SetString(PyExc_ValueError, "the bytes do not begin as those before");
        return NULL;
    }
    int outcome;
    do {
        outcome = step(self, (const unsigned char *)buffer, (size_t)length);
    } while (outcome == TAKEN);
    switch (outcome) {
    case REFUSED:
        return Py_NewRef(Py_False);
    case FINISHED:
        return PyLong_FromSize_t(self->position);
    case CUT_OFF:
        return Py_NewRef(Py_None);
    default:
        return NULL;
    }
}

static PyObject *
Verifier_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"",          "",             "",      "floor",  "per_byte", "argument",
                            "attribute", "equal_hashes", "marks", "levels", "payload",  NULL};
    PyObject *find, *reference;
    Py_ssize_t start, floor, per_byte, argument, attribute, equal_hashes, marks, levels, payload;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOn$nnnnnnnn:Verifier", names, &find, &reference, &start, &floor,
                                     &per_byte, &argument, &attribute, &equal_hashes, &marks, &levels, &payload)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Verifier *self = (Verifier *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->find = Py_NewRef(find);
    self->reference = Py_NewRef(reference);
    self->start = self->position = (size_t)start;
    self->frame_end = NO_FRAME;
    self->limits.floor = floor;
    self->limits.per_byte = per_byte;
    self->limits.argument = argument;
    self->limits.attribute = attribute;
    self->limits.equal_hashes = equal_hashes;
    self->limits.marks = marks;
    self->limits.levels = levels;
    self->limits.payload = payload;
    self->names = PyDict_New();
    if (self->names == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Verifier_traverse(Verifier *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->find);
    Py_VISIT(self->reference);
    Py_VISIT(self->names);
    return 0;
}

static int
Verifier_clear(Verifier *self)
{
    Py_CLEAR(self->find);
    Py_CLEAR(self->reference);
    Py_CLEAR(self->names);
    return 0;
}

static void
Verifier_dealloc(Verifier *self)
{
    PyObject_GC_UnTrack(self);
    Verifier_clear(self);
    PyMem_Free(self->stack.items);
    PyMem_Free(self->marks.items);
    PyMem_Free(self->memo.items);
    PyMem_Free(self->dicts.items);
    free_object((PyObject *)self);
}

static PyMethodDef Verifier_methods[] = {
    {"read", (PyCFunction)Verifier_read, METH_O,
     PyDoc_STR("Read on in bytes that begin as those before. Return the position behind the pickle; False if the "
               "machine has to decide; None if the bytes end before the pickle does.")},
    {NULL},
};

static PyMemberDef Verifier_members[] = {
    {"names", T_OBJECT, offsetof(Verifier, names), READONLY, NULL},
    {NULL},
};

static PyType_Slot Verifier_slots[] = {
    {Py_tp_doc, PyDoc_STR("Verifier(find, weakref.ref, start, **limits): tells whether a pickle needs no rule.")},
    {Py_tp_new, Verifier_new},
    {Py_tp_dealloc, Verifier_dealloc},
    {Py_tp_traverse, Verifier_traverse},
    {Py_tp_clear, Verifier_clear},
    {Py_tp_methods, Verifier_methods},
    {Py_tp_members, Verifier_members},
    {0, NULL},
};

PyType_Spec safepickle_Verifier_spec = {
    .name = "safepickle._speedups.Verifier",
    .basicsize = sizeof(Verifier),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Verifier_slots,
};
