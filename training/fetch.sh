#!/bin/sh
# Downloads the Debian packages that hold the photographs and unpacks them, without installing, into training/photos/.
# PYTHON is the interpreter that has the packages of requirements.txt, python3 by default.
set -eu
cd "$(dirname "$0")"
mkdir -p photos/packages
cd photos/packages
apt-get download gnome-backgrounds plasma-workspace-wallpapers mate-backgrounds ukui-wallpapers opencv-doc python3-skimage
for package in *.deb; do
    dpkg-deb -x "$package" ../unpacked
done
cd ../..
"${PYTHON:-python3}" photos.py photos/unpacked photos/photos.zip
