/* What the two files of the compiled core share. */

#ifndef SAFEPICKLE_SPEEDUPS_H
#define SAFEPICKLE_SPEEDUPS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>

/* What all types here need of their type, a subclass of it included. */
static inline void
free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc free_memory = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_memory(self);
    Py_DECREF(type);
}

extern PyType_Spec safepickle_Verifier_spec;

#endif
