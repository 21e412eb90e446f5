/* Calls with wrong arguments, from several threads, and often: calls NOISY CLEAN */
#undef NDEBUG
#include <assert.h>
#include <eddy.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static EddyContext *context;
static EddyDenoiser *denoiser;

static void refused(EddyStatus status, EddyStatus expected, const char *text) {
    if (status != expected || strstr(eddy_last_error(), text) == NULL) {
        fprintf(stderr, "status %d, expected %d and \"%s\": %s\n", status, expected, text,
                eddy_last_error());
        exit(1);
    }
}

static bool stop(void *user, size_t done, size_t total) {
    (void)user;
    (void)done;
    (void)total;
    return false;
}

enum { SIDE = 40, PADDED = SIDE * 3 + 8, BYTES = PADDED * SIDE };

/* A ramp with stripes, in padded rows. */
static void denoise_ramp(unsigned char *rows) {
    for (int i = 0; i < BYTES; i++) rows[i] = (unsigned char)(60 + i % PADDED / 3 + 20 * (i % 2));
    EddyImage image = {.data = rows, .width = SIDE, .height = SIDE, .channels = 3,
                       .stride = PADDED, .bits = 8};
    EddyDenoiseOptions options = eddy_denoise_options();
    options.sigma = 10;
    if (eddy_denoiser_run(denoiser, &image, &options, NULL) != EDDY_STATUS_OK) {
        fprintf(stderr, "%s\n", eddy_last_error());
        abort();
    }
}

/* Every thread denoises an image of its own by the same handle, and gets what `expected` has. */
static void *denoise_often(void *expected) {
    unsigned char *rows = malloc(BYTES);
    assert(rows != NULL);
    for (int i = 0; i < 50; i++) {
        denoise_ramp(rows);
        assert(memcmp(rows, expected, BYTES) == 0);
    }
    free(rows);
    return NULL;
}

static long resident_kilobytes(void) {
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert(file != NULL && fscanf(file, "%ld %ld", &pages, &resident) == 2);
    fclose(file);
    return resident * 4;
}

int main(int argc, char **argv) {
    assert(argc == 3);
    assert(eddy_last_error() == NULL);
    EddySettings settings = eddy_settings();
    settings.device = "toaster";
    refused(eddy_open(&settings, &context), EDDY_STATUS_USAGE, "toaster");
    assert(context == NULL);
    settings = eddy_settings();
    settings.size = 100000;
    refused(eddy_open(&settings, &context), EDDY_STATUS_USAGE, "100000 bytes");
    refused(eddy_open(NULL, NULL), EDDY_STATUS_USAGE, "is NULL");
    assert(eddy_open(NULL, &context) == EDDY_STATUS_OK);
    refused(eddy_denoiser_new(NULL, NULL, &denoiser), EDDY_STATUS_USAGE, "context is NULL");
    refused(eddy_denoiser_new(context, "nonsense", &denoiser), EDDY_STATUS_MODEL, "nonsense");
    refused(eddy_denoiser_new(context, "\xff", &denoiser), EDDY_STATUS_USAGE, "UTF-8");
    assert(denoiser == NULL);

    EddyImage image = {0};
    refused(eddy_image_read("gone.png", &image), EDDY_STATUS_INPUT, "gone.png");
    assert(eddy_image_read(argv[1], &image) == EDDY_STATUS_OK);
    refused(eddy_image_write("result", &image), EDDY_STATUS_USAGE, "no extension");
    assert(eddy_denoiser_new(context, NULL, &denoiser) == EDDY_STATUS_OK);
    EddyDenoiseOptions options = eddy_denoise_options();
    options.strength = 2;
    refused(eddy_denoiser_run(denoiser, &image, &options, NULL), EDDY_STATUS_USAGE, "2");
    options = eddy_denoise_options();
    options.progress = stop;
    refused(eddy_denoiser_run(denoiser, &image, &options, NULL), EDDY_STATUS_INTERRUPTED, "interrupted");
    refused(eddy_denoiser_run(denoiser, NULL, NULL, NULL), EDDY_STATUS_USAGE, "image is NULL");
    EddyImage wrong = image;
    wrong.bits = 12;
    refused(eddy_denoiser_run(denoiser, &wrong, NULL, NULL), EDDY_STATUS_USAGE, "12 bits");
    /* The stopped run left the image as it was, so that this gives what the example gives. */
    assert(eddy_denoiser_run(denoiser, &image, NULL, NULL) == EDDY_STATUS_OK);
    assert(eddy_image_write(argv[2], &image) == EDDY_STATUS_OK);

    EddyUpscaler *upscaler = NULL;
    refused(eddy_upscaler_new(context, NULL, &upscaler), EDDY_STATUS_USAGE, "model is NULL");
    refused(eddy_upscaler_new(context, "camera", &upscaler), EDDY_STATUS_MODEL, "camera");
    assert(eddy_upscaler_new(context, "upscale-x2", &upscaler) == EDDY_STATUS_OK);
    refused(eddy_upscaler_run(upscaler, &image, &image, NULL), EDDY_STATUS_USAGE, "the output is");
    eddy_upscaler_free(upscaler);
    eddy_image_free(&image);
    eddy_image_free(&image);

    EddyStream *stream = NULL;
    EddyVideoFormat format = {64, 48, "i421", 25, 1};
    refused(eddy_stream_new(context, NULL, &format, &stream), EDDY_STATUS_USAGE, "i421");
    format.pixel_format = "nv12";
    format.fps_denominator = 0;
    refused(eddy_stream_new(context, NULL, &format, &stream), EDDY_STATUS_USAGE, "25/0");
    format.fps_denominator = 1;
    assert(eddy_stream_new(context, NULL, &format, &stream) == EDDY_STATUS_OK);
    unsigned char frame[64 * 48 * 3 / 2] = {0};
    refused(eddy_stream_run(stream, frame, frame, 10), EDDY_STATUS_USAGE, "10 bytes");
    assert(eddy_stream_run(stream, frame, frame, sizeof frame) == EDDY_STATUS_OK);
    eddy_stream_free(stream);

    static unsigned char expected[BYTES];
    denoise_ramp(expected);
    assert(expected[SIDE * 3] == 60 + SIDE && expected[SIDE * 3 + 1] == 80 + SIDE); /* padding */
    pthread_t threads[2];
    long before = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++) assert(pthread_create(&threads[i], NULL, denoise_often, expected) == 0);
        for (int i = 0; i < 2; i++) assert(pthread_join(threads[i], NULL) == 0);
        if (round == 0) before = resident_kilobytes();
    }
    long growth = resident_kilobytes() - before;
    if (growth > 16384) {
        fprintf(stderr, "200 calls made the process grow by %ld kB\n", growth);
        return 1;
    }
    eddy_close(context); /* Denoisers outlive it. */
    denoise_often(expected);
    eddy_denoiser_free(denoiser);
    eddy_denoiser_free(NULL);
    eddy_close(NULL);
    return 0;
}
