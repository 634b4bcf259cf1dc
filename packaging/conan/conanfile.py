import pathlib
import re

from conan import ConanFile
from conan.tools.files import copy


class Gradus(ConanFile):
    """From a checkout: conan create packaging/conan. Headers only."""

    name = "gradus"
    description = "First-order optimizers for C++20, composed of rules"
    license = "MIT"
    topics = ("optimization", "deep-learning", "header-only")
    package_type = "header-library"
    options = {"simd": [True, False]}  # with xsimd; without, steps are scalar
    default_options = {"simd": True}
    no_copy_source = True

    @property
    def _checkout(self):
        return pathlib.Path(self.recipe_folder).parents[1]

    def set_version(self):
        config = (self._checkout / "include/gradus/config.hpp").read_text(encoding="utf-8")
        self.version = ".".join(re.search(rf"GRADUS_VERSION_{part} (\d+)", config)[1] for part in ("MAJOR", "MINOR", "PATCH"))

    def export_sources(self):
        for pattern in ("include/gradus/*", "backends/*/include/*", "LICENSE"):
            copy(self, pattern, self._checkout, self.export_sources_folder)

    def requirements(self):
        if self.options.simd:
            self.requires("xsimd/[>=8.1]")

    def package(self):
        copy(self, "LICENSE", self.source_folder, str(pathlib.Path(self.package_folder) / "licenses"))
        for folder in (pathlib.Path(self.source_folder) / "include", *pathlib.Path(self.source_folder).glob("backends/*/include")):
            copy(self, "*", folder, str(pathlib.Path(self.package_folder) / "include"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_file_name", "gradus")
        self.cpp_info.set_property("cmake_target_name", "gradus::gradus")
        self.cpp_info.set_property("pkg_config_name", "gradus")
        if not self.options.simd:
            self.cpp_info.defines = ["GRADUS_NO_XSIMD"]
