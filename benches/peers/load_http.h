/* As much of HTTP/1.1 and HTTP/2 as load.c needs: GETs, the status of an answer, and where it ends. */
#ifndef LOAD_HTTP_H
#define LOAD_HTTP_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum { DEPTH = 16, HEAD = 4096 };

/* A request under way. */
struct slot {
    uint64_t due;
    uint32_t stream;
    int busy;
    int status;
};

enum stage { IN_HEAD, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK, IN_CHUNK_END, IN_TRAILER };

struct connection {
    int socket;
    struct slot slots[DEPTH];
    /* HTTP/1.1: the head so far, where the answer is, bytes left of its body or chunk. HTTP/2: the frame. */
    enum stage stage;
    uint64_t left, unacknowledged;
    uint32_t kept, streams;
    unsigned char head[HEAD];
};

static struct slot *free_slot(struct connection *one, int depth) {
    for (int at = 0; at < depth; at++)
        if (!one->slots[at].busy)
            return &one->slots[at];
    abort();
}

static size_t http1_request(char *out, const char *path, const char **fields, int count) {
    int size = sprintf(out, "GET %s HTTP/1.1\r\nhost: bench.test\r\naccept: application/json\r\n", path);
    for (int at = 0; at < count; at++)
        size += sprintf(out + size, "%s\r\n", fields[at]);
    return size + sprintf(out + size, "\r\n");
}

/* The head is whole: what follows it. The status, or -1. */
static int http1_head(struct connection *one) {
    one->head[one->kept] = 0;
    const char *head = (const char *)one->head;
    int status = atoi(head + 9), chunked = 0;
    one->left = 0;
    for (const char *line = strchr(head, '\n'); line && line[1] != '\r'; line = strchr(line + 1, '\n')) {
        if (!strncasecmp(line + 1, "content-length:", 15))
            one->left = strtoull(line + 16, NULL, 10);
        if (!strncasecmp(line + 1, "transfer-encoding:", 18))
            chunked = strcasestr(line + 19, "chunked") != NULL;
    }
    if (status == 304)
        one->left = chunked = 0;
    one->slots[0].status = status;
    one->stage = chunked ? IN_CHUNK_SIZE : IN_BODY;
    one->kept = 0;
    return strncmp(head, "HTTP/1.", 7) ? -1 : status;
}

/* Reads a line into `head`; 1 when it is whole. */
static int read_line(struct connection *one, const char **at, const char *end) {
    while (*at < end) {
        char byte = *(*at)++;
        if (one->kept < HEAD - 1)
            one->head[one->kept++] = byte;
        if (byte == '\n')
            return 1;
    }
    return 0;
}

static int skip(struct connection *one, const char **at, const char *end) {
    uint64_t size = (uint64_t)(end - *at) < one->left ? (uint64_t)(end - *at) : one->left;
    *at += size;
    one->left -= size;
    return one->left == 0;
}

static int read_head(struct connection *one, const char **at, const char *end) {
    while (*at < end) {
        if (one->kept == HEAD - 1)
            return -1;
        one->head[one->kept++] = *(*at)++;
        if (one->kept >= 4 && !memcmp(one->head + one->kept - 4, "\r\n\r\n", 4))
            return http1_head(one) < 0 ? -1 : 1;
    }
    return 0;
}

/* Reads on; `slot` is set when an answer has ended. Its status, or -1 if this is no HTTP. */
static int http1_read(struct connection *one, const char **at, const char *end, struct slot **slot) {
    int whole = 1;
    /* Once more without bytes: a body of none ends with its head. */
    while (whole) {
        switch (one->stage) {
        case IN_HEAD:
            if (*at == end || (whole = read_head(one, at, end)) < 0)
                return *at == end && whole >= 0 ? 0 : -1;
            continue;
        case IN_CHUNK_SIZE:
            if (!(whole = read_line(one, at, end)))
                break;
            one->left = strtoull((const char *)one->head, NULL, 16);
            one->stage = one->left ? IN_CHUNK : IN_TRAILER;
            one->kept = 0;
            continue;
        case IN_CHUNK:
            if ((whole = skip(one, at, end)))
                one->stage = IN_CHUNK_END;
            continue;
        case IN_CHUNK_END:
            if ((whole = read_line(one, at, end)))
                one->stage = IN_CHUNK_SIZE;
            one->kept = whole ? 0 : one->kept;
            continue;
        case IN_TRAILER:
            if (!(whole = read_line(one, at, end)))
                break;
            whole = one->kept <= 2 ? 2 : 1;
            one->kept = 0;
            break;
        case IN_BODY:
            whole = skip(one, at, end) ? 2 : 0;
            break;
        }
        if (whole == 2) {
            one->stage = IN_HEAD;
            if (!one->slots[0].busy)
                return -1;
            *slot = &one->slots[0];
            return one->slots[0].status;
        }
    }
    return 0;
}

/* HTTP/2: frames of 9 bytes and a payload. Types and flags as RFC 9113 has them. */
enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITY = 32 };

static size_t http2_frame(unsigned char *out, uint32_t size, int type, int flags, uint32_t stream) {
    unsigned char head[9] = {size >> 16, size >> 8, size, type, flags, stream >> 24, stream >> 16, stream >> 8, stream};
    memcpy(out, head, 9);
    return 9;
}

static void http2_widen(struct connection *one, uint32_t by) {
    unsigned char frame[13];
    http2_frame(frame, 4, WINDOW_UPDATE, 0, 0);
    unsigned char size[4] = {by >> 24, by >> 16, by >> 8, by};
    memcpy(frame + 9, size, 4);
    send(one->socket, frame, sizeof frame, MSG_NOSIGNAL);
}

/* No table for headers (so that a status stands for itself), no push, windows as wide as they get. */
static void http2_begin(struct connection *one) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static const unsigned char settings[18] = {0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff};
    unsigned char out[64];
    memcpy(out, preface, 24);
    http2_frame(out + 24, sizeof settings, SETTINGS, 0, 0);
    memcpy(out + 33, settings, sizeof settings);
    send(one->socket, out, 33 + sizeof settings, MSG_NOSIGNAL);
    http2_widen(one, 0x7fffffff - 65535);
    one->streams = 1;
}

static unsigned char *text(unsigned char *out, const char *from, size_t size) {
    if (size < 127) {
        *out++ = size;
    } else {
        *out++ = 127;
        for (size -= 127; size >= 128; size >>= 7)
            *out++ = 128 | (size & 127);
        *out++ = size;
        size = strlen(from);
    }
    memcpy(out, from, size);
    return out + size;
}

static size_t http2_request(char *request, const char *path, const char **fields, int count) {
    unsigned char *out = (unsigned char *)request + 9;
    *out++ = 0x82; /* GET */
    *out++ = 0x86; /* http */
    *out++ = 0x01; /* :authority */
    out = text(out, "bench.test", 10);
    *out++ = 0x04; /* :path */
    out = text(out, path, strlen(path));
    *out++ = 0x0f, *out++ = 0x04; /* accept */
    out = text(out, "application/json", 16);
    for (int at = 0; at < count; at++) {
        const char *value = strstr(fields[at], ": ");
        char name[64] = {0};
        memcpy(name, fields[at], value - fields[at]);
        *out++ = 0;
        out = text(out, name, strlen(name));
        out = text(out, value + 2, strlen(value + 2));
    }
    size_t size = (char *)out - request;
    http2_frame((unsigned char *)request, size - 9, HEADERS, END_STREAM | END_HEADERS, 1);
    return size;
}

static void http2_number(struct connection *one, struct slot *slot, char *request) {
    slot->stream = one->streams;
    one->streams += 2;
    for (int at = 0; at < 4; at++)
        request[5 + at] = slot->stream >> (24 - 8 * at);
}

static struct slot *slot_of(struct connection *one, uint32_t stream) {
    for (int at = 0; at < DEPTH; at++)
        if (one->slots[at].busy && one->slots[at].stream == stream)
            return &one->slots[at];
    return NULL;
}

/* The status that a block of headers begins with: an index of the fixed table, or three digits. */
static int http2_status(const unsigned char *head, int flags) {
    static const int fixed[] = {200, 204, 206, 304, 400, 404, 500};
    head += (flags & PADDED ? 1 : 0) + (flags & PRIORITY ? 5 : 0);
    while ((*head & 0xe0) == 0x20) /* a new size of the table, which is 0 */
        head++;
    if (*head >= 0x88 && *head <= 0x8e)
        return fixed[*head - 0x88];
    if ((*head & 0x3f) == 8 && head[1] == 3)
        return atoi((const char[]){head[2], head[3], head[4], 0});
    if ((*head & 0x3f) == 8 && head[1] == 0x82 && head[2] == 0x10 && head[3] == 0x01)
        return 200;
    return 0;
}

/* A frame is whole; `head` has its 9 bytes and the first of its payload. */
static int http2_whole(struct connection *one, struct slot **slot) {
    unsigned char *head = one->head;
    int type = head[3], flags = head[4];
    uint32_t size = head[0] << 16 | head[1] << 8 | head[2];
    uint32_t stream = (head[5] & 127) << 24 | head[6] << 16 | head[7] << 8 | head[8];
    unsigned char answer[32];
    if ((type == SETTINGS || type == PING) && !(flags & ACK)) {
        uint32_t back = type == PING ? 8 : 0;
        http2_frame(answer, back, type, ACK, 0);
        memcpy(answer + 9, head + 9, back);
        send(one->socket, answer, 9 + back, MSG_NOSIGNAL);
    }
    if (type == DATA && (one->unacknowledged += size) > 1 << 30) {
        http2_widen(one, one->unacknowledged);
        one->unacknowledged = 0;
    }
    if (type != DATA && type != HEADERS && type != RST_STREAM)
        return 0;
    struct slot *of = slot_of(one, stream);
    if (!of)
        return 0;
    if (type == HEADERS)
        of->status = http2_status(head + 9, flags);
    if (type != RST_STREAM && !(flags & END_STREAM))
        return 0;
    *slot = of;
    return type == RST_STREAM ? 0 : of->status;
}

static int http2_read(struct connection *one, const char **at, const char *end, struct slot **slot) {
    for (;;) {
        while (one->kept < 9 && *at < end)
            one->head[one->kept++] = *(*at)++;
        if (one->kept < 9)
            return 0;
        if (one->stage == IN_HEAD) {
            one->left = one->head[0] << 16 | one->head[1] << 8 | one->head[2];
            one->stage = IN_BODY;
        }
        while (one->left && one->kept < 64 && *at < end) {
            one->head[one->kept++] = *(*at)++;
            one->left--;
        }
        if (!skip(one, at, end))
            return 0;
        int status = http2_whole(one, slot);
        one->stage = IN_HEAD;
        one->kept = 0;
        if (*slot || *at == end)
            return status;
    }
}

#endif
