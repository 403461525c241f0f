#!/bin/sh
# A package for Debian and its kin. The program is static, so it fits every release with systemd.
#
#   sh deploy/dist/deb.sh BUILT amd64|arm64 OUT     from what build.sh has made, into the folder OUT
#
# DEB_MAINTAINER says who gives it out; SOURCE_DATE_EPOCH the time of everything in it.
set -eu
built=$1 deb_arch=$2 out=$3
: "${SOURCE_DATE_EPOCH:?}" "${DEB_MAINTAINER:?}"
case $deb_arch in amd64) arch=x86_64 ;; arm64) arch=aarch64 ;; esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
doc=$tree/usr/share/doc/anteroom
umask 022

install -D -m 755 "$built/$arch/anteroom" "$tree/usr/bin/anteroom"
install -D -m 644 config/anteroom.toml "$tree/etc/anteroom/anteroom.toml"
mkdir -p "$tree/lib/systemd/system"
sed -e 's#/usr/local/bin/#/usr/bin/#g' -e "s#/usr/local/share/doc/anteroom/#/usr/share/doc/anteroom/docs/#" \
	-e '1s#.*#\# Anteroom under systemd. Settings: /etc/anteroom/anteroom.toml.#' config/anteroom.service \
	> "$tree/lib/systemd/system/anteroom.service"
for page in "$built"/man/*.1; do
	install -D -m 644 "$page" "$tree/usr/share/man/man1/$(basename "$page")"
done
install -D -m 644 "$built/completions/anteroom.bash" "$tree/usr/share/bash-completion/completions/anteroom"
install -D -m 644 "$built/completions/anteroom.zsh" "$tree/usr/share/zsh/vendor-completions/_anteroom"
install -D -m 644 "$built/completions/anteroom.fish" "$tree/usr/share/fish/vendor_completions.d/anteroom.fish"
# The documents keep their places, so that their links lead somewhere.
for file in README.md README.pt-BR.md SECURITY.md ARCHITECTURE.md docs/*.md docs/*/*.md dashboards/*.yml dashboards/*.json \
	docs/status-page.png config/prometheus.yml config/anteroom.toml; do
	install -D -m 644 "$file" "$doc/$file"
done
python3 -B deploy/dist/links.py mend "$doc"
install -D -m 644 CHANGELOG.md "$doc/changelog"
cat > "$doc/copyright" << END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: anteroom

Files: *
Copyright: the authors of Anteroom and of the libraries named in the SBOM that is given out with it
License: MIT or Apache-2.0

License: MIT
$(sed -e 's/^$/./' -e 's/^/ /' LICENSE-MIT)

License: Apache-2.0
 On Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.
END
cat > "$doc/changelog.Debian" << END
anteroom ($version-1) stable; urgency=medium

  * Version $version: /usr/share/doc/anteroom/changelog.gz.

 -- $DEB_MAINTAINER  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
END
gzip --best --no-name "$doc/changelog" "$doc/changelog.Debian" "$tree"/usr/share/man/man1/*.1
mkdir -p "$tree/usr/share/lintian/overrides"
cat > "$tree/usr/share/lintian/overrides/anteroom" << END
# One program for every release, whatever its libraries.
anteroom: statically-linked-binary [usr/bin/anteroom]
# It is given out by its authors, not by Debian.
anteroom: initial-upload-closes-no-bugs [usr/share/doc/anteroom/changelog.Debian.gz:1]
END

mkdir "$tree/DEBIAN"
echo /etc/anteroom/anteroom.toml > "$tree/DEBIAN/conffiles"
cat > "$tree/DEBIAN/control" << END
Package: anteroom
Version: $version-1
Architecture: $deb_arch
Maintainer: $DEB_MAINTAINER
Installed-Size: $(du -sk --apparent-size "$tree" | cut -f 1)
Recommends: ca-certificates
Section: web
Priority: optional
Description: caching reverse proxy for the Chatwoot-compatible public API
 Websites, apps and bots that read a contact's conversations point at Anteroom
 instead of the API: the list then comes from memory, one upstream request
 serves any number of simultaneous readers, and nobody who has seen a write
 acknowledged gets a list from before it. Everything else passes through.
 .
 The service is not started by itself: say in /etc/anteroom/anteroom.toml where
 the API is, then "systemctl enable --now anteroom".
END
# Without an upstream it could not start, so nobody is asked to; one that runs is started anew with a new program.
cat > "$tree/DEBIAN/postinst" << 'END'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload > /dev/null || true
	if [ -n "$2" ]; then
		deb-systemd-invoke try-restart anteroom.service > /dev/null || true
	fi
fi
END
cat > "$tree/DEBIAN/prerm" << 'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop anteroom.service > /dev/null || true
fi
END
cat > "$tree/DEBIAN/postrm" << 'END'
#!/bin/sh
set -e
if [ "$1" = purge ] && command -v deb-systemd-helper > /dev/null; then
	deb-systemd-helper purge anteroom.service > /dev/null || true
fi
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload > /dev/null || true
fi
END
chmod 755 "$tree/DEBIAN/postinst" "$tree/DEBIAN/prerm" "$tree/DEBIAN/postrm"
(cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/anteroom_$version-1_$deb_arch.deb" > /dev/null
