// SPDX-License-Identifier: Apache-2.0
// peer_etcd.c: etcd, three members on this machine. Its puts are answered when a majority has them on the disk.
//
// It is asked in the way that costs it and us the least: gRPC, its own protocol, over one connection to the leader, where
// each put is a stream of HTTP/2, and all that are under way run side by side. (Its JSON gateway turns each request into
// such a stream inside of the server.) It starts empty, which is to its advantage: the others have been loaded.
//
// What is sent for a put is the same bytes but for stream, key and value, laid out in advance:
//
//   frame HEADERS   the same for all: POST to etcdserverpb.KV/Put
//   frame DATA      five bytes of gRPC (not compressed; size of the message), then the message
//                   PutRequest { bytes key = 1; bytes value = 2; }
//
// A frame: size (3 bytes, big-endian), type, flags, stream (4 bytes). An answer is HEADERS, DATA if the put was done, and
// HEADERS that end the stream. Numbers of sections are those of RFC 9113; headers are written as RFC 7541 has it.
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PUTS_MAX = 512, REQUEST_MAX = 1024, BUFFER_SIZE = 65536, FRAME_HEAD = 9 };
enum { FRAME_DATA, FRAME_HEADERS, FRAME_SETTINGS = 4, FRAME_PING = 6, FRAME_WINDOW = 8 };
enum { FLAG_ACK = 1, FLAG_END_STREAM = 1, FLAG_END_HEADERS = 4 };

struct request {
    unsigned char bytes[REQUEST_MAX];
    size_t size, data_at, key_at, value_at; // data_at: of the second frame
};

struct database {
    struct etcd etcd;
    int fd;
    struct request request;
    size_t value_size;
    size_t begun, taken; // puts; that of number x is stream 2x + 1
    struct {
        bool answered, ended;
    } puts[PUTS_MAX];       // of number % PUTS_MAX
    int64_t window;         // bytes of DATA that the server takes now (5.2)
    uint32_t window_theirs; // bytes of DATA that have come since we told that there is room again
    unsigned char output[BUFFER_SIZE], input[BUFFER_SIZE];
    size_t output_size, input_size;
};

// ---- The request --------------------------------------------------------------------------------------------------

static void bytes_add(struct request *r, const void *bytes, size_t size) {
    if (size > sizeof(r->bytes) - r->size)
        fail("etcd: no room in a request");
    memcpy(r->bytes + r->size, bytes, size);
    r->size += size;
}

static void byte_add(struct request *r, unsigned byte) {
    unsigned char one = (unsigned char)byte;
    bytes_add(r, &one, 1);
}

static void text_add(struct request *r, const char *text) {
    byte_add(r, (unsigned)strlen(text)); // below 127: as it is
    bytes_add(r, text, strlen(text));
}

static void frame_add(struct request *r, size_t size, unsigned type, unsigned flags) {
    unsigned char head[FRAME_HEAD] = {(unsigned char)(size >> 16), (unsigned char)(size >> 8),
                                      (unsigned char)size, (unsigned char)type, (unsigned char)flags};
    bytes_add(r, head, sizeof(head));
}

// A field of bytes in a message: its number * 8 + 2, its size as a varint, the bytes. Returns where they are.
static size_t field_add(struct request *r, unsigned number, size_t size) {
    static const unsigned char nothing[REQUEST_MAX];
    byte_add(r, number * 8 + 2);
    size_t rest = size;
    for (; rest >= 128; rest /= 128)
        byte_add(r, (unsigned)(rest % 128 + 128));
    byte_add(r, (unsigned)rest);
    size_t at = r->size;
    bytes_add(r, nothing, size);
    return at;
}

static void request_make(struct request *r, uint16_t port, size_t value_size) {
    char authority[32];
    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u", port);
    frame_add(r, 0, FRAME_HEADERS, FLAG_END_HEADERS);
    byte_add(r, 0x80 + 3); // :method: POST
    byte_add(r, 0x80 + 6); // :scheme: http
    byte_add(r, 4);        // :path
    text_add(r, "/etcdserverpb.KV/Put");
    byte_add(r, 1); // :authority
    text_add(r, authority);
    byte_add(r, 0);
    text_add(r, "content-type");
    text_add(r, "application/grpc");
    byte_add(r, 0);
    text_add(r, "te");
    text_add(r, "trailers");
    r->bytes[2] = (unsigned char)(r->size - FRAME_HEAD);

    r->data_at = r->size;
    frame_add(r, 0, FRAME_DATA, FLAG_END_STREAM);
    size_t message_at = r->size + 5;
    bytes_add(r, "\0\0\0\0\0", 5);
    r->key_at = field_add(r, 1, KEY_SIZE);
    r->value_at = field_add(r, 2, value_size);
    uint32_t size = htonl((uint32_t)(r->size - message_at));
    memcpy(r->bytes + message_at - 4, &size, sizeof(size));
    size_t data_size = r->size - r->data_at - FRAME_HEAD;
    r->bytes[r->data_at + 1] = (unsigned char)(data_size >> 8);
    r->bytes[r->data_at + 2] = (unsigned char)data_size;
}

// ---- Frames -------------------------------------------------------------------------------------------------------

static void output_flush(struct database *d) {
    loopback_send(d->fd, d->output, d->output_size);
    d->output_size = 0;
}

static void output_add(struct database *d, const void *bytes, size_t size) {
    if (size > sizeof(d->output) - d->output_size)
        output_flush(d);
    memcpy(d->output + d->output_size, bytes, size);
    d->output_size += size;
}

static void control_add(struct database *d, unsigned type, unsigned flags, const void *body, size_t size) {
    struct request r = {.size = 0};
    frame_add(&r, size, type, flags);
    bytes_add(&r, body, size);
    output_add(d, r.bytes, r.size);
}

static uint32_t word_at(const unsigned char *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof(word));
    return ntohl(word);
}

static void on_data(struct database *d, uint32_t stream, size_t size) {
    d->puts[stream / 2 % PUTS_MAX].answered = true;
    d->window_theirs += (uint32_t)size;
    if (d->window_theirs < BUFFER_SIZE / 4)
        return;
    uint32_t room = htonl(d->window_theirs);
    control_add(d, FRAME_WINDOW, 0, &room, sizeof(room));
    d->window_theirs = 0;
}

static void on_frame(struct database *d, const unsigned char *head, size_t size) {
    const unsigned char *body = head + FRAME_HEAD;
    unsigned type = head[3], flags = head[4];
    uint32_t stream = word_at(head + 5);
    switch (type) {
    case FRAME_DATA:
        on_data(d, stream, size);
        break;
    case FRAME_HEADERS:
        d->puts[stream / 2 % PUTS_MAX].ended = flags & FLAG_END_STREAM;
        break;
    case FRAME_SETTINGS:
    case FRAME_PING:
        if (!(flags & FLAG_ACK))
            control_add(d, type, FLAG_ACK, body, type == FRAME_PING ? size : 0);
        break;
    case FRAME_WINDOW:
        if (stream == 0)
            d->window += word_at(body);
        break;
    default:
        fail("etcd sends a frame of type %u", type);
    }
}

// Sends what is to be sent, waits for something, and takes all frames that have come in full.
static void frames_take(struct database *d) {
    output_flush(d);
    ssize_t part = recv(d->fd, d->input + d->input_size, sizeof(d->input) - d->input_size, 0);
    if (part <= 0 && !(part < 0 && errno == EINTR))
        fail("etcd: %s", part == 0 ? "the connection is closed" : strerror(errno));
    d->input_size += part > 0 ? (size_t)part : 0;
    size_t at = 0;
    while (d->input_size - at >= FRAME_HEAD) {
        const unsigned char *head = d->input + at;
        size_t size = word_at(head) >> 8;
        if (d->input_size - at - FRAME_HEAD < size)
            break;
        on_frame(d, head, size);
        at += FRAME_HEAD + size;
    }
    memmove(d->input, d->input + at, d->input_size - at);
    d->input_size -= at;
}

// ---- Puts ---------------------------------------------------------------------------------------------------------

static void etcd_put_append(void *writer, const struct key *key, const void *value, size_t size) {
    struct database *d = writer;
    struct request *r = &d->request;
    int64_t data_size = (int64_t)(r->size - r->data_at - FRAME_HEAD);
    if (size != d->value_size || d->begun - d->taken == PUTS_MAX)
        fail("etcd: a value of another size, or too many puts under way");
    while (d->window < data_size)
        frames_take(d);
    d->window -= data_size;
    d->puts[d->begun % PUTS_MAX].answered = d->puts[d->begun % PUTS_MAX].ended = false;
    uint32_t stream = htonl((uint32_t)(2 * d->begun++ + 1));
    memcpy(r->bytes + 5, &stream, sizeof(stream));
    memcpy(r->bytes + r->data_at + 5, &stream, sizeof(stream));
    memcpy(r->bytes + r->key_at, key, KEY_SIZE);
    memcpy(r->bytes + r->value_at, value, size);
    output_add(d, r->bytes, r->size);
}

static void etcd_put_await(void *writer) {
    struct database *d = writer;
    size_t slot = d->taken++ % PUTS_MAX;
    while (!d->puts[slot].ended)
        frames_take(d);
    if (!d->puts[slot].answered)
        fail("etcd refuses a put");
}

static void etcd_put(void *writer, const struct key *key, const void *value, size_t size) {
    etcd_put_append(writer, key, value, size);
    etcd_put_await(writer);
}

// ---- The peer -----------------------------------------------------------------------------------------------------

static int server_connect(uint16_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)))
        fail("cannot connect to etcd: %s", strerror(errno));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

static void *etcd_open(const struct records *records) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; // 3.4
    struct database *d = calloc(1, sizeof(*d));
    if (!d)
        fail("no memory");
    etcd_begin(&d->etcd, 3);
    uint16_t port = d->etcd.members[d->etcd.leader].port;
    d->value_size = records->value_size;
    d->window = 65535;
    request_make(&d->request, port, records->value_size);
    d->fd = server_connect(port);
    output_add(d, preface, sizeof(preface) - 1);
    control_add(d, FRAME_SETTINGS, 0, "", 0);
    return d;
}

static void etcd_close(void *database) {
    struct database *d = database;
    (void)close(d->fd);
    etcd_end(&d->etcd);
    free(d);
}

static void *etcd_writer_open(void *database) {
    return database;
}
static void etcd_writer_close(void *writer) {
    (void)writer;
}

const struct peer peer_etcd = {
    .name = "etcd",
    .open = etcd_open,
    .close = etcd_close,
    .writer_open = etcd_writer_open,
    .writer_close = etcd_writer_close,
    .put = etcd_put,
    .put_append = etcd_put_append,
    .put_await = etcd_put_await,
};
