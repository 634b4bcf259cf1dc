#pragma once
/// \file
/// Decides whether files are accessed through POSIX, and includes its headers if so; else those of Windows. Other systems get
/// plain stdio.

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

#if defined(_WIN32)
#include <io.h>
// These are declared here, because windows.h defines hundreds of macros.
extern "C" __declspec(dllimport) int __stdcall MoveFileExA(const char*, const char*, unsigned long);
extern "C" __declspec(dllimport) unsigned long __stdcall GetFileAttributesA(const char*);
extern "C" __declspec(dllimport) unsigned long __stdcall GetLastError();
#endif

#include <gradus/config.hpp>
