#!/bin/sh
# Downloads the Debian packages that hold the photographs and unpacks them, without installing, into training/photos/.
set -eu
cd "$(dirname "$0")"
mkdir -p photos/packages
cd photos/packages
apt-get download gnome-backgrounds plasma-workspace-wallpapers mate-backgrounds ukui-wallpapers opencv-doc python3-skimage
for package in *.deb; do
    dpkg-deb -x "$package" ../unpacked
done
cd ../..
python3 photos.py photos/unpacked photos/photos.zip
