// The whole sequence of a sparse access memory, forwards and backwards, on the CPU.
#include "cell_calls.h"
#include "sam_backward.h"

EXPORT_SEQUENCE(sam, Problem)
