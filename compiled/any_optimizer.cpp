// A unit of gradus::compiled: any_optimizer's recipes in the precision GRADUS_COMPILED_PRECISION.

#include <gradus/any_optimizer.hpp>

GRADUS_OPEN_NAMESPACE
GRADUS_COMPILED_ANY_OPTIMIZER(, GRADUS_COMPILED_PRECISION)
GRADUS_CLOSE_NAMESPACE
