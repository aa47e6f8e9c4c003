// The whole sequence of a Differentiable Neural Computer, forwards and backwards, on the CPU.
#include "cell_calls.h"
#include "dnc_backward.h"

EXPORT_SEQUENCE(dnc, Problem)
