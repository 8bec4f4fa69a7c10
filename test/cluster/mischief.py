#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A proxy on a host of network.py, between its node and the others. The node connects to addresses that are the others', but lie here;
what it says goes on to the proxy of the host that is meant, and from there to the node. On the way it is held up, doubled,
swapped, damaged or cut, message by message, as the last line of standard input says: JSON, all members may be missing:

    {"delay_ms": at most so long, each; "hold": true: nothing goes on until that is over;
     "double", "swap", "damage", "cut": how likely, of each message}

Usage: mischief.py SEED PORT OWN BACK OTHER=BACK...     (OWN, OTHER: addresses of nodes; BACK: of the proxies between hosts)"""

import asyncio
import json
import random
import struct
import sys

HEADER_BYTES, SIZE_OFFSET = 192, 12  # src/wire/peer.h
QUEUE_MAX = 200

mischief = {}
changed = None
dice = random.Random(int(sys.argv[1]))


def falls(name):
    return dice.random() < mischief.get(name, 0)


async def message_read(reader):
    header = await reader.readexactly(HEADER_BYTES)
    return header + await reader.readexactly(struct.unpack_from('<I', header, SIZE_OFFSET)[0])


async def messages_read(reader, queue):
    """Each with the time before which it does not go on. None: the end."""
    due = 0
    try:
        while True:
            message = await message_read(reader)
            due = max(due, asyncio.get_running_loop().time() + dice.uniform(0, mischief.get('delay_ms', 0)) / 1000)
            await queue.put((due, message))
    except (OSError, asyncio.IncompleteReadError):
        await queue.put(None)


async def messages_write(queue, writer):
    first, kept = True, None
    while True:
        item = await queue.get()
        if item is None:
            return
        due, message = item
        await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
        while mischief.get('hold'):
            changed.clear()
            await changed.wait()
        if first:  # HELLO
            first = False
            writer.write(message)
            await writer.drain()
            continue
        if falls('cut'):
            writer.write(message[:dice.randrange(len(message))])
            await writer.drain()
            return
        if falls('damage'):
            at = dice.randrange(len(message))
            message = message[:at] + bytes([message[at] ^ 1 << dice.randrange(8)]) + message[at + 1:]
        if kept is None and falls('swap'):
            kept = message
            continue
        writer.write(message + (message if falls('double') else b'') + (kept or b''))
        kept = None
        await writer.drain()


async def bytes_pass(reader, writer):
    while True:
        some = await reader.read(65536)
        if not some:
            return
        writer.write(some)
        await writer.drain()


async def ends_with_first(*tasks):
    """Runs them until one has ended, whatever way."""
    running = [asyncio.ensure_future(task) for task in tasks]
    _, others = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def passes_on(target, port, by_message):
    async def connection(reader, writer):
        try:
            reader_on, writer_on = await asyncio.open_connection(target, port)
        except OSError:
            writer.close()
            return
        queue = asyncio.Queue(QUEUE_MAX)
        there = [messages_read(reader, queue), messages_write(queue, writer_on)] if by_message else [bytes_pass(reader, writer_on)]
        if by_message:
            there[0] = never_ends(there[0])  # what is in the queue still goes
        await ends_with_first(*there, bytes_pass(reader_on, writer))
        writer.close()
        writer_on.close()
    return connection


async def never_ends(task):
    await task
    await asyncio.Event().wait()


async def orders_take():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        line = await reader.readline()
        if not line:
            return
        mischief.clear()
        mischief.update(json.loads(line))
        changed.set()


async def main():
    global changed
    changed = asyncio.Event()
    port, own, back = int(sys.argv[2]), sys.argv[3], sys.argv[4]
    await asyncio.start_server(passes_on(own, port, False), back, port)
    for pair in sys.argv[5:]:
        other, other_back = pair.split('=')
        await asyncio.start_server(passes_on(other_back, port, True), other, port)
    print('ready', flush=True)
    await orders_take()


asyncio.run(main())
