// What outlives a reload: the data and the token, in the browser's own database on this device.

const STORE = "phone";

function opened(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("ray-split", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function within<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

export async function keep(name: string, value: unknown): Promise<void> {
  await within("readwrite", (store) => store.put(value, name));
}

export function kept<T>(name: string): Promise<T | undefined> {
  return within("readonly", (store) => store.get(name) as IDBRequest<T | undefined>);
}

export async function forgetAll(): Promise<void> {
  await within("readwrite", (store) => store.clear());
}
