/* Denoises an image, enlarges it twice, and denoises frames of it:
 *     cc denoise.c $(pkg-config --cflags --libs eddy) -o denoise && ./denoise noisy.png clean.png large.png
 */
#include <eddy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, eddy_last_error());
    return 1;
}

static bool count_evaluations(void *user, size_t done, size_t total) {
    (void)total;
    *(size_t *)user = done;
    return true;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s NOISY CLEAN LARGE\n", argv[0]);
        return 2;
    }
    EddyContext *context = NULL;
    EddyDenoiser *denoiser = NULL;
    EddyUpscaler *upscaler = NULL;
    EddyStream *stream = NULL;
    EddySettings settings = eddy_settings();
    settings.threads = 2;
    if (eddy_open(&settings, &context) != EDDY_STATUS_OK) return failed("eddy_open");

    EddyImage image = {0};
    if (eddy_image_read(argv[1], &image) != EDDY_STATUS_OK) return failed(argv[1]);
    if (eddy_denoiser_new(context, NULL, &denoiser) != EDDY_STATUS_OK) return failed("denoiser");
    size_t evaluations = 0;
    EddyDenoiseOptions options = eddy_denoise_options();
    options.progress = count_evaluations;
    options.user = &evaluations;
    EddyDenoiseReport report;
    if (eddy_denoiser_run(denoiser, &image, &options, &report) != EDDY_STATUS_OK)
        return failed("eddy_denoiser_run");
    printf("removed noise of sigma %.1f in %zu evaluations\n", report.sigma, evaluations);
    if (eddy_image_write(argv[2], &image) != EDDY_STATUS_OK) return failed(argv[2]);

    if (eddy_upscaler_new(context, "upscale-x2", &upscaler) != EDDY_STATUS_OK)
        return failed("upscaler");
    EddyImage large = image;
    large.width *= eddy_upscaler_scale(upscaler);
    large.height *= eddy_upscaler_scale(upscaler);
    large.stride = large.width * large.channels * large.bits / 8;
    large.data = malloc(large.stride * large.height);
    if (large.data == NULL) return 1;
    if (eddy_upscaler_run(upscaler, &image, &large, NULL) != EDDY_STATUS_OK)
        return failed("eddy_upscaler_run");
    if (eddy_image_write(argv[3], &large) != EDDY_STATUS_OK) return failed(argv[3]);
    free(large.data);
    eddy_image_free(&image);

    EddyVideoFormat format = {
        .width = 64, .height = 48, .pixel_format = "yuv420p", .fps_numerator = 25, .fps_denominator = 1};
    if (eddy_stream_new(context, NULL, &format, &stream) != EDDY_STATUS_OK) return failed("stream");
    size_t bytes = eddy_stream_frame_bytes(stream);
    uint8_t *frame = malloc(bytes);
    if (frame == NULL) return 1;
    for (int i = 0; i < 3; i++) {
        memset(frame, 100 + i, bytes);
        if (eddy_stream_run(stream, frame, frame, bytes) != EDDY_STATUS_OK)
            return failed("eddy_stream_run");
    }
    printf("denoised 3 frames of %zu bytes\n", bytes);
    free(frame);
    eddy_stream_free(stream);
    eddy_upscaler_free(upscaler);
    eddy_denoiser_free(denoiser);
    eddy_close(context);
    return 0;
}
