// SPDX-FileCopyrightText: 2026 pve-pybridge contributors
// SPDX-License-Identifier: Apache-2.0
//
// Bytes there and back over a Unix socket: what the kernel and a scheduler alone cost.

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char buffer[65536];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path))
        return 2;
    strcpy(address.sun_path, argv[1]);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 16))
        return 1;
    for (;;) {
        int peer = accept(listener, 0, 0);
        ssize_t got;

        while ((got = read(peer, buffer, sizeof(buffer))) > 0)
            if (write(peer, buffer, got) != got)
                break;
        close(peer);
    }
}
