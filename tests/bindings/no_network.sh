#!/bin/sh
# no_network.sh NM SOURCES PROGRAM LIBRARY...: nothing in gradus opens a connection.
#
# Neither the libraries nor a program of headers alone call a function of sockets or name services; the Python sources import
# no such module; and a program that saves and loads makes no such system call, where strace can watch it.
set -eu
nm=$1 sources=$2 program=$3
shift 3
functions='socket|socketpair|connect|bind|listen|accept|accept4|send|sendto|sendmsg|recv|recvfrom|recvmsg|getaddrinfo|gethostbyname|gethostbyname_r|getnameinfo|res_query|res_search|inet_[a-z]*'
for file in "$program" "$@"; do
  called=$("$nm" --dynamic --undefined-only "$file" | awk '{ sub("@.*", "", $NF); print $NF }')
  test -n "$called" || { echo "$file: has no dynamic symbols; expected some"; exit 1; }
  if echo "$called" | grep -xE "$functions"; then
    echo "$file: calls the functions above; expected none of sockets"
    exit 1
  fi
done
if grep -nE '^[[:space:]]*(import|from)[[:space:]]+(socket|ssl|http|urllib|ftplib|smtplib|asyncio|requests|socketserver|xmlrpc)' \
    "$sources"/bindings/python/gradus/*.py "$sources"/tools/torch_checkpoint.py; then
  echo "the sources above import a module that opens connections"
  exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if strace -f -e trace=network -o "$log" true 2>/dev/null; then
  strace -f -e trace=network -o "$log" "$program" > /dev/null
  if grep -vE '\+\+\+|---' "$log"; then
    echo "$program: makes the system calls above; expected none of sockets"
    exit 1
  fi
else
  echo "strace is not installed or not allowed here (Debian's package strace): system calls are not watched"
fi
