/* Eddy for C: denoising and super-resolution of images and frames.
 *
 * Functions return a status; eddy_last_error() has the text of this thread's last error. A handle can
 * be used by any thread; calls on one handle wait for each other. Settings and options are made by
 * eddy_settings(), eddy_denoise_options() and so on, which fill in the defaults. Pointers are valid or,
 * where the text says so, NULL. Made by cbindgen from bindings/c/src; do not edit. */

#ifndef EDDY_H
#define EDDY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/**
 * The result of a function.
 */
typedef enum EddyStatus {
  /**
   * It did what it says.
   */
  EDDY_STATUS_OK = 0,
  /**
   * An evaluation of the network failed, or a file could not be written.
   */
  EDDY_STATUS_FAILED = 1,
  /**
   * An argument is out of range, or arguments contradict each other.
   */
  EDDY_STATUS_USAGE = 2,
  /**
   * A file could not be read.
   */
  EDDY_STATUS_INPUT = 3,
  /**
   * A model is missing or malformed.
   */
  EDDY_STATUS_MODEL = 4,
  /**
   * ONNX Runtime could not be used.
   */
  EDDY_STATUS_RUNTIME = 5,
  /**
   * The requested device does not work.
   */
  EDDY_STATUS_DEVICE = 6,
  /**
   * The progress function stopped the run.
   */
  EDDY_STATUS_INTERRUPTED = 130,
  /**
   * A bug in Eddy. The handles stay usable.
   */
  EDDY_STATUS_PANICKED = 255,
} EddyStatus;

/**
 * ONNX Runtime and the settings of all networks.
 */
typedef struct EddyContext EddyContext;

/**
 * Denoises images.
 */
typedef struct EddyDenoiser EddyDenoiser;

/**
 * Denoises the frames of one video, using previous frames.
 */
typedef struct EddyStream EddyStream;

/**
 * Enlarges images.
 */
typedef struct EddyUpscaler EddyUpscaler;

/**
 * The settings of a context; made by eddy_settings().
 */
typedef struct EddySettings {
  /**
   * sizeof(EddySettings), which eddy_settings() sets.
   */
  size_t size;
  /**
   * "cpu", "cuda:0", "auto" ...; NULL for the CPU.
   */
  const char *device;
  /**
   * Threads within an operator; 0 for one per physical core.
   */
  size_t threads;
  /**
   * The memory limit of the whole process in bytes; 0 for a quarter of the machine's memory.
   */
  uint64_t max_memory;
  /**
   * "f32", "f16" or "int8"; NULL for the one that suits the device.
   */
  const char *precision;
  /**
   * Another ONNX Runtime library than the embedded one; NULL for that.
   */
  const char *runtime;
} EddySettings;

/**
 * Is called after every evaluation with the number of evaluations done and their total. False stops
 * the run.
 */
typedef bool (*EddyProgress)(void *user, size_t, size_t);

/**
 * How an image is denoised; made by eddy_denoise_options().
 */
typedef struct EddyDenoiseOptions {
  /**
   * sizeof(EddyDenoiseOptions), which eddy_denoise_options() sets.
   */
  size_t size;
  /**
   * The standard deviation of the noise in 8-bit units; below 0 (the default) it is estimated.
   */
  double sigma;
  /**
   * With both of these from 0 on, sigma of luma and of chroma at half the size, in place of
   * `sigma`, for the model `camera`.
   */
  double luma_sigma;
  /**
   * See `luma_sigma`.
   */
  double chroma_sigma;
  /**
   * Sampler steps; 0 for the model's default.
   */
  size_t steps;
  /**
   * Part of each step's noise that is fresh, 0 to 1; default 0.
   */
  double eta;
  /**
   * How much of the noise is removed, 0 to 1; default 1.
   */
  double strength;
  /**
   * The random seed of fresh noise; default 0.
   */
  uint64_t seed;
  /**
   * Is called after every evaluation; NULL for none.
   */
  EddyProgress progress;
  /**
   * The first argument of `progress`.
   */
  void *user;
} EddyDenoiseOptions;

/**
 * How an image is enlarged; made by eddy_upscale_options().
 */
typedef struct EddyUpscaleOptions {
  /**
   * sizeof(EddyUpscaleOptions), which eddy_upscale_options() sets.
   */
  size_t size;
  /**
   * Network evaluations; 0 for the model's default. One has the highest PSNR, several have
   * texture.
   */
  size_t steps;
  /**
   * Part of each step's noise that is fresh, 0 to 1; default 0.
   */
  double eta;
  /**
   * The random seed; default 0.
   */
  uint64_t seed;
  /**
   * Is called after every evaluation; NULL for none.
   */
  EddyProgress progress;
  /**
   * The first argument of `progress`.
   */
  void *user;
} EddyUpscaleOptions;

/**
 * An image in memory: interleaved samples, row by row from the top.
 */
typedef struct EddyImage {
  /**
   * The samples: full range, 16 bits in the byte order of the machine.
   */
  void *data;
  /**
   * Width in pixels, 1 to 65535.
   */
  size_t width;
  /**
   * Height in pixels, 1 to 65535.
   */
  size_t height;
  /**
   * 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha). Alpha is straight.
   */
  size_t channels;
  /**
   * Bytes from a row to the next; 0 for rows without padding.
   */
  size_t stride;
  /**
   * Bits per sample: 8 or 16.
   */
  uint32_t bits;
} EddyImage;

/**
 * What is known of a denoised image.
 */
typedef struct EddyDenoiseReport {
  /**
   * Standard deviation of the removed noise in 8-bit units; of luma for the model `camera`.
   */
  double sigma;
  /**
   * Sampler steps.
   */
  size_t steps;
  /**
   * Number of tiles.
   */
  size_t tiles;
} EddyDenoiseReport;

/**
 * Frames of a video: progressive, without padding.
 */
typedef struct EddyVideoFormat {
  /**
   * Width in pixels, 1 to 65535.
   */
  size_t width;
  /**
   * Height in pixels, 1 to 65535.
   */
  size_t height;
  /**
   * The layout of a frame: "yuv420p", "nv12", "yuyv422", "rgb24", "gray" ...
   */
  const char *pixel_format;
  /**
   * Frames per second as a fraction; 25/1, 30000/1001 ...
   */
  uint32_t fps_numerator;
  /**
   * See `fps_numerator`.
   */
  uint32_t fps_denominator;
} EddyVideoFormat;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library.
 */
const char *eddy_version(void);

/**
 * The text of the last error of this thread: what was found, what was expected and what to do. NULL
 * if there was none. Valid until the next call of this thread.
 */
const char *eddy_last_error(void);

/**
 * The default settings.
 */
struct EddySettings eddy_settings(void);

/**
 * The default options for denoising.
 */
struct EddyDenoiseOptions eddy_denoise_options(void);

/**
 * The default options for enlarging.
 */
struct EddyUpscaleOptions eddy_upscale_options(void);

/**
 * Loads ONNX Runtime. `settings` may be NULL. A process uses one ONNX Runtime: all contexts name
 * the same `runtime`.
 */
enum EddyStatus eddy_open(const struct EddySettings *settings, struct EddyContext **context);

/**
 * Closes a context. What was made from it stays usable. NULL is ignored.
 * The context comes from eddy_open() and is not used afterwards.
 */
void eddy_close(struct EddyContext *context);

/**
 * A denoiser: a bundled model ("denoise", "denoise-fast", "camera"), the folder of a model package,
 * or an ONNX file. NULL chooses "denoise-fast" or "camera" by the noise of each image.
 */
enum EddyStatus eddy_denoiser_new(const struct EddyContext *context,
                                  const char *model,
                                  struct EddyDenoiser **denoiser);

/**
 * Denoises an image in place; after an error it is unchanged. `options` and `report` may be NULL.
 */
enum EddyStatus eddy_denoiser_run(const struct EddyDenoiser *denoiser,
                                  struct EddyImage *image,
                                  const struct EddyDenoiseOptions *options,
                                  struct EddyDenoiseReport *report);

/**
 * Frees a denoiser. NULL is ignored.
 * It comes from eddy_denoiser_new() and is not used afterwards.
 */
void eddy_denoiser_free(struct EddyDenoiser *denoiser);

/**
 * An upscaler: a bundled model ("upscale-x2", "upscale-x4") or the folder of a model package.
 */
enum EddyStatus eddy_upscaler_new(const struct EddyContext *context,
                                  const char *model,
                                  struct EddyUpscaler **upscaler);

/**
 * The factor along each axis; 0 for NULL.
 */
size_t eddy_upscaler_scale(const struct EddyUpscaler *upscaler);

/**
 * Enlarges `input` into `output`, whose rows are allocated: width and height times the scale, with
 * the same channels and bits. `options` may be NULL.
 * The rows of the two do not overlap.
 */
enum EddyStatus eddy_upscaler_run(const struct EddyUpscaler *upscaler,
                                  const struct EddyImage *input,
                                  struct EddyImage *output,
                                  const struct EddyUpscaleOptions *options);

/**
 * Frees an upscaler. NULL is ignored.
 * It comes from eddy_upscaler_new() and is not used afterwards.
 */
void eddy_upscaler_free(struct EddyUpscaler *upscaler);

/**
 * A stream for frames of `format`. A `model` of NULL is "camera", or "denoise-fast" for RGB.
 */
enum EddyStatus eddy_stream_new(const struct EddyContext *context,
                                const char *model,
                                const struct EddyVideoFormat *format,
                                struct EddyStream **stream);

/**
 * The bytes of a frame; 0 for NULL.
 */
size_t eddy_stream_frame_bytes(const struct EddyStream *stream);

/**
 * Denoises the next frame of `bytes` bytes from `input` into `output`, which may be the same. After
 * an error of the network, make another stream.
 * Both pointers are valid for `bytes` bytes, and equal or not overlapping.
 */
enum EddyStatus eddy_stream_run(const struct EddyStream *stream,
                                const uint8_t *input,
                                uint8_t *output,
                                size_t bytes);

/**
 * Frees a stream. NULL is ignored.
 * It comes from eddy_stream_new() and is not used afterwards.
 */
void eddy_stream_free(struct EddyStream *stream);

/**
 * Reads a PNG, JPEG, TIFF, WebP, BMP or QOI file; free it by eddy_image_free().
 */
enum EddyStatus eddy_image_read(const char *path, struct EddyImage *image);

/**
 * Writes an image into a file, by the extension of its name. It appears under its name when it is
 * complete.
 */
enum EddyStatus eddy_image_write(const char *path, const struct EddyImage *image);

/**
 * Frees the rows of an image that eddy_image_read() made, and of no other. NULL is ignored.
 * The pointer is valid or null, and the fields are as eddy_image_read() set them.
 */
void eddy_image_free(struct EddyImage *image);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* EDDY_H */
