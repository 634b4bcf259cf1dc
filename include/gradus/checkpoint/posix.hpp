#pragma once
/// \file
/// Decides whether files are accessed through POSIX, and includes its headers if so. Other systems get plain stdio.

#if defined(__unix__) || defined(__APPLE__)
/// 1 on POSIX systems, else 0.
#define GRADUS_POSIX 1
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>
#else
#define GRADUS_POSIX 0
#endif

#include <gradus/config.hpp>
