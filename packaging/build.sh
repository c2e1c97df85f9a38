#!/usr/bin/env bash
# Makes what is handed out from a static program that was built already: a Debian package and an archive with install.sh.
#   packaging/build.sh PROGRAM FOLDER
# Needs cargo-deb for the package; without it only the archive is made, and it says so.
set -euo pipefail
program=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
cd "$(dirname "$0")/.."

version=$("$program" --version | awk '{ print $2 }')
staged=target/packaging
rm -rf "$staged"
mkdir -p "$staged/man" "$staged/completions"
cp "$program" "$staged/chartgate"
"$program" man --out "$staged/man"
gzip -9n "$staged"/man/*.1
"$program" completions bash > "$staged/completions/chartgate.bash"
"$program" completions zsh > "$staged/completions/_chartgate"
"$program" completions fish > "$staged/completions/chartgate.fish"

# Debian wants a changelog in its own form; ours is beside it.
{
  printf 'chartgate (%s-1) stable; urgency=medium\n\n  * See changelog.gz.\n\n' "$version"
  printf ' -- The Chartgate authors <packages@chartgate.example>  %s\n' "$(git log -1 --format=%cD)"
} > "$staged/changelog"
gzip -9nc packaging/CHANGELOG.md > "$staged/upstream-changelog.gz"

name=chartgate-$version-$(uname -m)
mkdir "$staged/$name"
cp "$staged/chartgate" packaging/install.sh packaging/chartgate.service packaging/chartgate.sysusers \
  packaging/chartgate.tmpfiles config.toml LICENSE README.md packaging/CHANGELOG.md "$staged/$name/"
# The same bytes for the same program: no times, no users of this machine.
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$staged" -cf - "$name" | gzip -9n > "$folder/$name.tar.gz"
echo "$folder/$name.tar.gz"

if cargo deb --version >/dev/null 2>&1; then
  cargo deb --no-build --no-strip --output "$folder/"
else
  echo "cargo-deb is not installed, so there is no Debian package" >&2
fi
