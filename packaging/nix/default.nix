# From a checkout: nix-build -E 'with import <nixpkgs> {}; callPackage ./packaging/nix {}'
{ lib, stdenv, cmake, xsimd }:

stdenv.mkDerivation {
  pname = "gradus";
  version = "0.1.0";
  src = lib.cleanSource ../..;

  nativeBuildInputs = [ cmake ];
  propagatedBuildInputs = [ xsimd ];

  meta = {
    description = "First-order optimizers for C++20, composed of rules";
    license = lib.licenses.mit;
    platforms = lib.platforms.all;
  };
}
