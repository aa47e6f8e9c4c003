// The whole sequence of a Neural Turing Machine, forwards and backwards, on the CPU.
#include "cell_calls.h"
#include "ntm_backward.h"

EXPORT_SEQUENCE(ntm, Problem)
