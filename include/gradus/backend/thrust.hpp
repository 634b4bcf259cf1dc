#pragma once
// In a source tree the backends live in a folder of their own; an installation has the header itself here.
#include "../../../backends/thrust/thrust.hpp"
