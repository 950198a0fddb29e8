/* JsonRows: rows of Arrow record batches written as JSON objects (table_library.h says how). Made
 * for one schema; then for each batch `bind`, and `write` for each row. Values that lie outside
 * their buffers, as a hostile file may have them, are noticed. Used by one thread. */
#ifndef TROUPE_DATASET_ARROW_JSON_ROWS_HPP
#define TROUPE_DATASET_ARROW_JSON_ROWS_HPP

#include <memory>
#include <string>
#include <vector>

#include <arrow/api.h>

/* A growing buffer that malloc gave, so that C can free what becomes of it. */
class JsonText
{
  public:
    ~JsonText();
    /* Room for `bytes` more; throws std::bad_alloc. */
    char *reserve(size_t bytes);
    void put(const char *bytes, size_t length);
    void put(char byte);
    void put_string(const char *bytes, size_t length); /* quoted and escaped */
    char *take(); /* of about that length; the caller frees it; leaves an empty text */

    char *data = nullptr;
    size_t length = 0, capacity = 0;
};

/* What is wrong with a value, in a line. */
struct BadTable {
    std::string message;
};

struct Column; /* a field of the schema, with the array that it is bound to */

class JsonRows
{
  public:
    /* Throws BadTable for a type that is not supported. */
    explicit JsonRows(const arrow::Schema &schema);
    ~JsonRows();
    void bind(const arrow::RecordBatch &batch);
    /* Appends row `index` of the batch. Throws BadTable. */
    void write(int64_t index, JsonText &text);

  private:
    std::vector<std::unique_ptr<Column>> columns;
};

#endif
