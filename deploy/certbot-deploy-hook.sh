#!/bin/sh
# Copies a renewed certificate to TinyChat. certbot runs this as root after it has issued a certificate and after each
# renewal, if it was called with:
#
#     certbot certonly --standalone -d chat.example.com --deploy-hook tinychat-deploy-hook
#
# Only root can read certbot's private key. The hook leaves it that way, and copies certificate and key to
# /etc/tinychat/tls, where only root and the service's group can read them. The copy is written to a new folder, and then
# replaces the previous one in a single step. (If TinyChat reads one file before that step and the other after it, the two
# do not match: it keeps the pair in use, and loads again.) The hook can be run by hand, and repeatedly:
#
#     RENEWED_LINEAGE=/etc/letsencrypt/live/chat.example.com tinychat-deploy-hook
set -eu

lineage=${RENEWED_LINEAGE:?is not set: certbot sets it, by hand it is /etc/letsencrypt/live/YOUR.NAME}
tls=${TINYCHAT_TLS:-/etc/tinychat/tls}
group=${TINYCHAT_GROUP:-tinychat}
# Empty: no reload. TinyChat then notices the change itself, within seconds.
reload=${TINYCHAT_RELOAD-systemctl reload tinychat}

for file in fullchain.pem privkey.pem; do
    if [ ! -s "$lineage/$file" ]; then
        echo "tinychat-deploy-hook: $lineage/$file is missing or empty: nothing was changed" >&2
        exit 1
    fi
done

# Other users must never be able to read the key.
umask 077
mkdir -p "$tls"
chgrp "$group" "$tls"
chmod 750 "$tls"

# Only one hook at a time changes the folder. The lock is released when the process exits.
exec 9>"$tls/.lock"
flock 9

new=$(mktemp -d "$tls/pair.XXXXXXXX")
trap 'rm -rf "$new"' EXIT
for file in fullchain.pem privkey.pem; do
    cat "$lineage/$file" >"$new/$file"
    chgrp "$group" "$new/$file"
    chmod 640 "$new/$file"
done
chgrp "$group" "$new"
chmod 750 "$new"
sync -f "$new/privkey.pem" 2>/dev/null || sync

# The single step: rename one link over the other.
before=$(readlink "$tls/live" || true)
ln -s "${new##*/}" "$new.live"
mv -T "$new.live" "$tls/live"
trap - EXIT

# Remove keys that are no longer in use.
for pair in "$tls"/pair.*; do
    [ "$pair" = "$new" ] || rm -rf "$pair"
done
echo "tinychat-deploy-hook: $tls/live leads to ${new##*/} (before: ${before:-nothing})"

if [ -n "$reload" ]; then
    # A server that is not running loads the pair when it starts.
    $reload || echo "tinychat-deploy-hook: \"$reload\" failed: is the service running?" >&2
fi
