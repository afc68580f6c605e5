//! A live PHP process read from outside: memory, layout, values, stack, heap, request.
