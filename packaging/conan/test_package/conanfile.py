import os

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, cmake_layout


class Consumer(ConanFile):
    settings = "os", "compiler", "build_type", "arch"
    generators = "CMakeDeps", "CMakeToolchain"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def test(self):
        if can_run(self):
            gradus = self.dependencies["gradus"]
            backend = "simd" if gradus.options.simd else "scalar"
            self.run(f"{os.path.join(self.cpp.build.bindir, 'consumer')} {gradus.ref.version} {backend}", env="conanrun")
