/* Masks of pictures from a SavedModel, with TensorFlow's C library alone: no Python, no wsss_tf.
 *
 *   load_model MODEL INPUT OUTPUT FOLDER PICTURE...
 *
 * runs the pictures one by one and writes FOLDER/0.png, FOLDER/1.png and so on. INPUT and OUTPUT
 * are graph tensors, as NAME:INDEX; `saved_model_cli show --dir MODEL --tag_set serve
 * --signature_def serving_default` names those of image_bytes and mask_bytes. The library loads the
 * model as TensorFlow Serving does, with tensorflow::LoadSavedModel. compare_with_infer.py builds
 * and runs this.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "error: %s: code %d: %s\n", what, TF_GetCode(status), TF_Message(status));
  exit(TF_GetCode(status) == TF_INVALID_ARGUMENT ? 3 : 1);
}

static TF_Output find(TF_Graph* graph, const char* tensor) {
  char name[1024];
  const char* colon = strrchr(tensor, ':');
  if (!colon || colon - tensor >= (long)sizeof(name)) {
    fprintf(stderr, "error: %s: give NAME:INDEX\n", tensor);
    exit(2);
  }
  memcpy(name, tensor, colon - tensor);
  name[colon - tensor] = 0;
  TF_Output output = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!output.oper) {
    fprintf(stderr, "error: %s: no such operation\n", name);
    exit(2);
  }
  return output;
}

static void* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) {
    fprintf(stderr, "error: %s: cannot be read\n", path);
    exit(2);
  }
  *size = ftell(file);
  rewind(file);
  void* contents = malloc(*size + 1);
  if (!contents || fread(contents, 1, *size, file) != *size) exit(2);
  fclose(file);
  return contents;
}

static void free_string(void* data, size_t size, void* unused) {
  (void)size, (void)unused;
  TF_TString_Dealloc(data);
  free(data);
}

int main(int argc, char** argv) {
  if (argc < 6) {
    fprintf(stderr, "usage: load_model MODEL INPUT OUTPUT FOLDER PICTURE...\n");
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Graph* graph = TF_NewGraph();
  const char* tags[] = {"serve"};
  TF_Session* session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, argv[1]);
  TF_Output input = find(graph, argv[2]), output = find(graph, argv[3]);

  for (int i = 5; i < argc; i++) {
    size_t size;
    void* contents = read_file(argv[i], &size);
    TF_TString* string = malloc(sizeof(TF_TString));
    TF_TString_Init(string);
    TF_TString_Copy(string, contents, size);
    free(contents);
    const int64_t dims[] = {1};
    TF_Tensor* picture =
        TF_NewTensor(TF_STRING, dims, 1, string, sizeof(TF_TString), free_string, NULL);
    TF_Tensor* mask = NULL;
    TF_SessionRun(session, NULL, &input, &picture, 1, &output, &mask, 1, NULL, 0, NULL, status);
    TF_DeleteTensor(picture);
    check(status, argv[i]);

    const TF_TString* png = TF_TensorData(mask);
    char path[4096];
    snprintf(path, sizeof(path), "%s/%d.png", argv[4], i - 5);
    FILE* file = fopen(path, "wb");
    size = TF_TString_GetSize(png);
    if (!file || fwrite(TF_TString_GetDataPointer(png), 1, size, file) != size || fclose(file)) {
      fprintf(stderr, "error: %s: cannot be written\n", path);
      return 2;
    }
    TF_DeleteTensor(mask);
  }
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return 0;
}
