from pathlib import Path

from spack.package import CMakePackage, depends_on, license, variant, version


class Gradus(CMakePackage):
    """First-order optimizers for C++20, composed of rules: headers, and optionally the C library."""

    # From a checkout. Whoever publishes the recipe puts the address of the repository here.
    git = Path(__file__).resolve().parents[2].as_uri()

    license("MIT")
    version("0.1.0", branch="main")

    variant("simd", default=True, description="Steps with the processor's vector instructions (xsimd)")
    variant("c", default=False, description="Build libgradus, the C library")

    depends_on("cxx", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("xsimd@8.1:", when="+simd")

    def cmake_args(self):
        return [self.define_from_variant("GRADUS_C", "c")]
