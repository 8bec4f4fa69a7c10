#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the corpora of fuzz_superblock, fuzz_segment, fuzz_dump, fuzz_coordinator and fuzz_peer_stream anew: pieces of real files of a small
shelf, and dumps, answers of etcd and messages written here, some of them wrong. Needed after a change of a format.

Usage: corpus_make.py SHELF"""

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

SHELF = os.path.abspath(sys.argv[1])
CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'corpus')
PAGE = 4096


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def save(target, name, data):
    with open(os.path.join(CORPUS, target, name), 'wb') as f:
        f.write(data)


def changed(data, offset):
    return data[:offset] + bytes([data[offset] ^ 8]) + data[offset + 1:]


def with_last(data, odd):
    """Whether the last byte is odd says whether the target repairs checksums."""
    return data[:-1] + bytes([data[-1] & 0xfe | odd])


def superblocks(directory):
    blocks = open(os.path.join(directory, 'superblock'), 'rb').read()
    slot, size = 'ab'[struct.unpack_from('<I', blocks, 116)[0]], struct.unpack_from('<Q', blocks, 104)[0]
    roots = open(os.path.join(directory, 'roots.' + slot), 'rb').read(size)
    save('fuzz_superblock', 'good', blocks + roots)
    save('fuzz_superblock', 'copies_two_bad', changed(changed(blocks, 100), 4196) + roots)
    save('fuzz_superblock', 'copies_three_bad', changed(changed(changed(blocks, 100), 4196), 8292) + roots)
    save('fuzz_superblock', 'format_newer', changed(blocks[:4096] * 4, 12) + roots)
    save('fuzz_superblock', 'roots_cut', blocks + roots[:50])
    save('fuzz_superblock', 'roots_bad', blocks + changed(roots, 34))
    save('fuzz_superblock', 'repaired', with_last(changed(blocks, 100) + changed(roots, 70), 1))
    save('fuzz_superblock', 'short', blocks[:5000])
    save('fuzz_superblock', 'empty', b'')


def segments(directory):
    with open(os.path.join(directory, 'log'), 'rb') as f:
        segment = f.read(1 << 20)
    at = [i for i in range(0, len(segment), 512) if segment[i:i + 8] == b'SHELFREC']
    end = at[4]
    save('fuzz_segment', 'good', with_last(segment[:end], 0))
    save('fuzz_segment', 'repaired', with_last(changed(segment[:end], at[0] + 150), 1))
    save('fuzz_segment', 'torn', with_last(changed(segment[:end], at[2] + 140), 0))
    save('fuzz_segment', 'gap', with_last(segment[:at[1]] + bytes(at[2] - at[1]) + segment[at[2]:end], 0))
    save('fuzz_segment', 'cut', segment[:at[2] + 200])
    save('fuzz_segment', 'header_only', segment[:64])
    save('fuzz_segment', 'empty', b'')


def dump(chunks, size=16 * PAGE, size_max=None, name=b'data', magic=b'SHELFDMP'):
    header = bytearray(256)
    struct.pack_into('<8sIHH16sQQQQQI4x64s', header, 0, magic, 0, 1, 0, b'0123456789abcdef', 7, 1, 0, size,
                     size_max or size, 2, name)
    struct.pack_into('<I', header, 8, crc32c(header))
    out, total, byte_count = bytes(header), crc32c(header), 0
    for offset, data in chunks:
        head = struct.pack('<8sIIQQ', b'SHELFCHK', 0, len(data), offset, 0)
        head = head[:8] + struct.pack('<I', crc32c(data, crc32c(head))) + head[12:]
        total, byte_count = crc32c(head, total), byte_count + len(data)
        out += head + data
    trailer = struct.pack('<8sIIQQ', b'SHELFEND', 0, total, len(chunks), byte_count)
    return out + trailer[:8] + struct.pack('<I', crc32c(trailer)) + trailer[12:]


def dumps():
    page = bytes(range(256)) * 16
    whole = dump([(0, page), (5 * PAGE, page * 2)])
    save('fuzz_dump', 'good', whole)
    save('fuzz_dump', 'no_chunks', dump([]))
    save('fuzz_dump', 'order', dump([(5 * PAGE, page), (0, page)]))
    save('fuzz_dump', 'overlap', dump([(0, page * 2), (PAGE, page)]))
    save('fuzz_dump', 'outside', dump([(16 * PAGE, page)]))
    save('fuzz_dump', 'unaligned', dump([(100, page)]))
    save('fuzz_dump', 'name_empty', dump([(0, page)], name=b''))
    save('fuzz_dump', 'size_zero', dump([], size=0, size_max=PAGE))
    save('fuzz_dump', 'foreign', dump([], magic=b'SHELFXXX'))
    save('fuzz_dump', 'cut', whole[:6000])
    save('fuzz_dump', 'longer', whole + b'\0')
    save('fuzz_dump', 'chunk_bad', changed(whole, 1000))
    save('fuzz_dump', 'repaired', whole + b'\1')
    save('fuzz_dump', 'empty', b'')


def etcd_register(key, value=b'value', mod=8, **changes):
    kv = {'key': base64.b64encode(b'/shelf/fuzz/' + key).decode(), 'create_revision': '2', 'mod_revision': str(mod),
          'version': '3', 'value': base64.b64encode(value).decode()}
    return {**kv, **changes}


def coordinators():
    def put(name, which, body):
        save('fuzz_coordinator', name, bytes([which]) + (body if isinstance(body, bytes) else json.dumps(body).encode()))

    header = {'header': {'cluster_id': '324952591200643719', 'member_id': '3', 'revision': '9', 'raft_term': '2'}}
    group, node = etcd_register(b'configuration/0'), etcd_register(b'nodes/7')
    put('range_nothing', 0, header)
    put('range_some', 0, {**header, 'kvs': [group, node, etcd_register(b'other')], 'count': '3'})
    put('range_more', 0, {**header, 'kvs': [group], 'more': True})
    put('range_many', 0, {**header, 'kvs': [etcd_register(b'nodes/%d' % i) for i in range(129)]})
    put('range_number', 0, {**header, 'kvs': [etcd_register(b'configuration/18446744073709551615', mod_revision=8)]})
    put('range_bad_base64', 0, {**header, 'kvs': [{**group, 'value': 'e*=='}]})
    put('range_empty_value', 0, {**header, 'kvs': [etcd_register(b'nodes/1', b'')]})
    put('range_large', 0, {**header, 'kvs': [etcd_register(b'nodes/1', bytes(2048))]})
    put('range_too_large', 0, {**header, 'kvs': [etcd_register(b'nodes/1', bytes(2049))]})
    put('range_cut', 0, json.dumps({**header, 'kvs': [group]}).encode()[:-9])
    put('range_deep', 0, b'[' * 3000)
    put('range_twice', 0, b'{"header":{},"header":{}}')
    put('ask_won', 1, {**header, 'succeeded': True, 'responses': [{'response_put': header}, {'response_range': {'kvs': [group]}}]})
    put('ask_lost', 1, {**header, 'responses': [{'response_range': {'kvs': [group], 'count': '1'}}]})
    put('ask_removed', 1, {**header, 'succeeded': True, 'responses': [{'response_delete_range': {}}, {'response_range': {}}]})
    put('ask_two', 1, {**header, 'responses': [{'response_range': {'kvs': [group, node]}}]})
    put('ask_none', 1, {**header, 'succeeded': True, 'responses': []})
    put('watch_created', 2, {'result': {**header, 'created': True}})
    put('watch_events', 2, {'result': {**header, 'events': [
        {'kv': group}, {'type': 'PUT', 'kv': node}, {'type': 'DELETE', 'kv': {'key': node['key'], 'mod_revision': '9'}}]}})
    put('watch_canceled', 2, {'result': {**header, 'canceled': True, 'compact_revision': '7'}})
    put('watch_error', 2, {'error': {'grpc_code': 14, 'http_code': 503, 'message': 'not \u0007 now'}})
    put('watch_error_empty', 2, {'error': {'message': ''}})
    put('watch_type', 2, {'result': {**header, 'events': [{'type': 'EAT', 'kv': node}]}})
    put('token_good', 3, {**header, 'token': 'abcDEF.15'})
    put('token_line', 3, {'token': 'abc\r\nX: y'})
    put('token_long', 3, {'token': 'x' * 5000})
    put('error_good', 4, {'error': 'x', 'message': 'etcdserver: request timed out', 'code': 14})
    put('error_strange', 4, {'message': 'a\u0000b\u00e9' + 'x' * 300, 'code': -1})

    def sealed(data):
        return data[:8] + struct.pack('<I', crc32c(data)) + data[12:]
    members = b''.join(struct.pack('<Q16sQ', i + 1, bytes([i]) * 16, 0) for i in range(3))
    value = sealed(struct.pack('<8sIHHQQ16sIIII16s', b'SHLFCNFG', 0, 1, 0, 5, 2, b'n' * 16, 3, 0, 0, 0, b's' * 16) + members)
    put('value_configuration', 5, value)
    put('value_configuration_repaired', 131 + 6, changed(value, 24))
    put('value_configuration_cut', 131 + 6, value[:-32])
    address = b'10.0.0.1:7000'
    record = sealed(struct.pack('<8sIHHQ16s24x', b'SHLFNODE', 0, 1, len(address), 7, b'i' * 16) + address)
    put('value_node', 5, record)
    put('value_node_repaired', 131 + 6, changed(record, 70))
    save('fuzz_coordinator', 'empty', b'')


KINDS = {'hello': 1, 'join': 2, 'append': 3, 'ack': 4, 'fetch': 9, 'forward': 11}


def message(kind, body=b'', epoch=0, index=0, index_epoch=0, commit=0, last=0, round_=0, **changes):
    fields = {'version': 1, 'size': len(body), 'body_crc': crc32c(body) if body else 0, **changes}
    head = struct.pack('<4sIIIHHHH16sQ16sQ16sQQQQQQ56x', b'PEER', 0, fields['body_crc'], fields['size'], fields['version'],
                       KINDS[kind], 0, 0, bytes(16), 3, b'incarnation', epoch, bytes(16), index, index_epoch, commit,
                       last, last if last == 0 else 1, round_)
    return head[:4] + struct.pack('<I', crc32c(head)) + head[8:] + body


def peer_streams():
    def put(name, pieces, data, repaired=0):
        save('fuzz_peer_stream', name, bytes([pieces << 1 | repaired]) + data)

    def request(size):
        return struct.pack('<IIIIIHH', 1000, 100, 0, 0, size, 1, 0) + bytes(i & 255 for i in range(size - 8))

    small = message('join', epoch=2, commit=1) + message('append', epoch=2, index=7, index_epoch=1, commit=5, round_=1)
    forwards = b''.join(message('forward', request(size), epoch=2, round_=size) for size in (8, 9, 100, 3001, 16))
    large = message('forward', request(300000), epoch=2, round_=1)
    put('small', 0, small)
    put('small_bytes', 1, small)
    put('forwards', 100, forwards)
    put('forwards_turns', 0, forwards + small)
    put('large', 127, small + large + forwards)
    put('ack', 7, message('ack', epoch=2, index=7, index_epoch=1, commit=5, last=9, round_=1) + message('fetch', epoch=2, index=4))
    put('size_huge', 0, small + message('forward', request(64), epoch=2, size=0xffffffff))
    put('size_none', 0, message('join', epoch=2, size=5))
    put('body_bad', 33, forwards[:-3] + b'xxx' + small)
    put('header_bad', 33, small[:200] + b'x' + small[201:])
    put('header_bad_repaired', 33, changed(small, 200), 1)
    put('garbage', 50, bytes(range(256)) * 3)
    put('garbage_repaired', 50, bytes(range(256)) * 3, 1)
    put('version', 0, message('hello', version=2))
    put('cut', 9, forwards[:400])
    save('fuzz_peer_stream', 'empty', b'')


def main():
    for name in ('fuzz_superblock', 'fuzz_segment', 'fuzz_dump', 'fuzz_coordinator', 'fuzz_peer_stream'):
        shutil.rmtree(os.path.join(CORPUS, name), ignore_errors=True)
        os.makedirs(os.path.join(CORPUS, name))
    with tempfile.TemporaryDirectory() as work:
        directory = os.path.join(work, 'shelf')
        subprocess.run([SHELF, 'create', directory, 'data', '1M'], check=True, stdout=subprocess.DEVNULL)
        for i in range(4):
            subprocess.run([SHELF, 'put', directory, 'data/m', f'key {i}', 'value'], check=True)
        superblocks(directory)
        segments(directory)
    dumps()
    coordinators()
    peer_streams()


if __name__ == '__main__':
    main()
