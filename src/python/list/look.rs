//! Values in dicts and attributes of objects, found without running Python code, so that pointers to them
//! need no references: what the interpreter may run code for is left to [`super::pick`].
//!
//! What costs is not the work but the cache misses, four to a number: the dict, its table, the object, the
//! number. A block of elements goes through each step together, and each step asks for what the next reads.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyType};

use super::items::in_place;
use super::number::{Scalar, exact, int};
use crate::python::array::prefetch;

/// Elements that go through the steps together.
const BLOCK: usize = 32;

/// Entries of a dict that are looked at, one after the other.
const LOOKED_AT: usize = 32;

type Object = *mut ffi::PyObject;

/// Where the objects of a class have an attribute.
#[derive(Clone, Copy)]
#[cfg_attr(Py_3_12, allow(dead_code))]
enum Place {
    /// `__slots__`: at this offset.
    Slot(isize),
    /// In the dict that every object has.
    Dict,
    /// This one of the values, in CPython 3.11 where an object has no dict yet.
    Value(usize),
}

/// An attribute of a class. The class is held, so that no other can have its address.
pub struct Attribute<'py> {
    class: Bound<'py, PyAny>,
    place: Place,
}

impl<'py> Attribute<'py> {
    /// `None` if to ask for it may run Python code. May run Python code itself.
    pub fn of(object: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Option<Self>> {
        let class = object.get_type();
        // SAFETY: a class is a live type object, and the field is set when it is made.
        let getattro = unsafe { (*class.as_type_ptr()).tp_getattro };
        if getattro.is_none_or(|getattro| {
            !ptr::fn_addr_eq(getattro, ffi::PyObject_GenericGetAttr as ffi::getattrofunc)
        }) {
            return Ok(None);
        }
        let place = match in_class(&class, name)? {
            None => in_object(&class, name),
            Some(found) => slot(&class, &found),
        };
        Ok(place.map(|place| Self { class: class.into_any(), place }))
    }
}

/// What a class or its bases have by a name.
fn in_class<'py>(
    class: &Bound<'py, PyType>,
    name: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    for base in class.mro() {
        let names = base.getattr("__dict__")?;
        if names.contains(name)? {
            return names.get_item(name).map(Some);
        }
    }
    Ok(None)
}

/// The place that a descriptor of `__slots__` reads.
fn slot(class: &Bound<'_, PyType>, found: &Bound<'_, PyAny>) -> Option<Place> {
    // SAFETY: the object is alive, and its type is looked at before it is read as that type.
    unsafe {
        let object = found.as_ptr();
        if ffi::Py_TYPE(object) != &raw mut ffi::PyMemberDescr_Type {
            return None;
        }
        let found = object.cast::<ffi::PyMemberDescrObject>();
        let member = (*found).d_member;
        let plain = (*member).type_code == ffi::Py_T_OBJECT_EX && (*member).flags & !ffi::Py_READONLY == 0;
        let own = ffi::PyType_IsSubtype(class.as_type_ptr(), (*found).d_common.d_type) != 0;
        (plain && own).then_some(Place::Slot((*member).offset))
    }
}

/// CPython 3.11's table of a dict; of objects of one class, it may be shared.
#[cfg(not(Py_3_12))]
#[repr(C)]
struct Keys {
    references: isize,
    log2_size: u8,
    log2_index_bytes: u8,
    kind: u8,
    version: u32,
    usable: isize,
    entries: isize,
}

#[cfg(not(Py_3_12))]
impl Keys {
    const GENERAL: u8 = 0;
    const SPLIT: u8 = 2;

    /// Where the entries are: after the indices.
    ///
    /// # Safety
    ///
    /// The table is a live one.
    unsafe fn entries<T>(keys: *const Self) -> *const T {
        // SAFETY: the caller's promise.
        unsafe { keys.add(1).byte_add(1 << (*keys).log2_index_bytes).cast() }
    }
}

/// The place in an object that has it in its `__dict__`, which has no such name in its class.
#[cfg(not(Py_3_12))]
fn in_object(class: &Bound<'_, PyType>, name: &Bound<'_, PyString>) -> Option<Place> {
    // SAFETY: a class with the flag is a heap type, and its table, if it has one, is as above; entries, of a
    // name and a value each, come after the indices, and there are as many as it says.
    unsafe {
        let class = class.as_type_ptr();
        if (*class).tp_flags & ffi::Py_TPFLAGS_MANAGED_DICT == 0
            || (*class).tp_flags & ffi::Py_TPFLAGS_HEAPTYPE == 0
        {
            return None;
        }
        let keys = (*class.cast::<ffi::PyHeapTypeObject>()).ht_cached_keys.cast::<Keys>();
        if keys.is_null() || (*keys).kind != Keys::SPLIT {
            return Some(Place::Dict);
        }
        let entries = keys.add(1).byte_add(1 << (*keys).log2_index_bytes).cast::<[Object; 2]>();
        let count = (*keys).entries as usize;
        let index = (0..count).find(|&at| (*entries.add(at))[0] == name.as_ptr());
        Some(index.map_or(Place::Dict, Place::Value))
    }
}

#[cfg(Py_3_12)]
fn in_object(_: &Bound<'_, PyType>, _: &Bound<'_, PyString>) -> Option<Place> {
    None
}

/// How to get from an element to its number.
pub struct Path<'a, 'py> {
    /// The keys of the elements, which are dicts.
    pub keys: Option<&'a Bound<'py, PyList>>,
    /// What of that is meant: a name, of a dict or of an object.
    pub name: Option<&'a Bound<'py, PyString>>,
    pub attribute: Option<&'a Attribute<'py>>,
}

/// The numbers of a list's elements, until one is not found so; how many were. Allocates nothing, and runs
/// no Python code.
pub fn read<T: Scalar>(list: &Bound<'_, PyList>, path: &Path<'_, '_>, out: &mut [MaybeUninit<T>]) -> usize {
    // SAFETY: nothing below runs Python code.
    let (items, keys) = unsafe { (in_place(list), path.keys.map(|keys| in_place(keys))) };
    if items.len() != out.len() || keys.is_some_and(|keys| keys.len() != items.len()) {
        return 0;
    }
    let (mut by_key, mut by_name) = (Hint::default(), Hint::default());
    let mut done = 0;
    items[..items.len().min(2 * BLOCK)].iter().for_each(|item| prefetch(item.as_ptr().cast(), 1));
    for (block, out) in items.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        ask_ahead(items, done);
        let mut found = [ptr::null_mut(); BLOCK];
        let mut count = block.len();
        for (slot, item) in found.iter_mut().zip(block) {
            *slot = item.as_ptr();
        }
        // SAFETY: the objects are those of the list, or found in these; nothing runs Python code, which alone
        // could change either while the GIL is held.
        unsafe {
            if let Some(keys) = keys {
                count =
                    step(&mut found[..count], |at, object| by_key.value(object, keys[done + at].as_ptr()));
            }
            if let Some(name) = path.name {
                let name = name.as_ptr();
                count =
                    step(&mut found[..count], |_, object| named(object, name, path.attribute, &mut by_name));
            }
        }
        for (slot, object) in out.iter_mut().zip(&found[..count]) {
            // SAFETY: as above; the reference is borrowed.
            let object = unsafe { Borrowed::from_ptr(list.py(), *object) };
            let Some(value) = exact(&object) else { return done };
            slot.write(value);
            done += 1;
        }
        if count < block.len() {
            return done;
        }
    }
    done
}

/// Asks for the tables of the next block's dicts, and for the elements of the one after it.
fn ask_ahead(items: &[Bound<'_, PyAny>], done: usize) {
    let block = |from: usize| &items[from.min(items.len())..(from + BLOCK).min(items.len())];
    for item in block(done + 2 * BLOCK) {
        prefetch(item.as_ptr().cast(), 1);
    }
    for item in block(done + BLOCK) {
        // SAFETY: the object is alive.
        prefetch(unsafe { table(item.as_ptr()) }, 2);
    }
}

/// Where a dict's table is; null if it is none.
///
/// # Safety
///
/// The object is alive.
unsafe fn table(object: Object) -> *const i8 {
    // SAFETY: the object is alive, and its type is looked at before it is read as that type.
    unsafe {
        if ffi::Py_TYPE(object) == &raw mut ffi::PyDict_Type {
            (*object.cast::<ffi::PyDictObject>()).ma_keys.cast()
        } else {
            ptr::null()
        }
    }
}

/// Puts what is found in each object in its place, and asks for it; how many there are until one is not found.
fn step(objects: &mut [Object], mut find: impl FnMut(usize, Object) -> Option<Object>) -> usize {
    for (at, slot) in objects.iter_mut().enumerate() {
        let Some(found) = find(at, *slot) else { return at };
        prefetch(found.cast(), 1);
        *slot = found;
    }
    objects.len()
}

/// Where a dict had the value that was looked for, the last time.
#[derive(Default)]
struct Hint {
    position: isize,
    /// Two texts that are found to be equal; the one that is wanted last.
    equal: Option<[Object; 2]>,
}

impl Hint {
    /// The value of a key in a dict of few entries.
    ///
    /// # Safety
    ///
    /// The objects are alive, and so are those of the calls before.
    unsafe fn value(&mut self, dict: Object, key: Object) -> Option<Object> {
        // SAFETY: the objects are alive, and the first is a dict.
        unsafe {
            if ffi::Py_TYPE(dict) != &raw mut ffi::PyDict_Type {
                return None;
            }
            let mut next = self.position;
            if let Some([found, value]) = entry(dict, &mut next)
                && self.same(found, key)
            {
                return Some(value);
            }
            next = 0;
            for _ in 0..LOOKED_AT {
                let position = next;
                let [found, value] = entry(dict, &mut next)?;
                if self.same(found, key) {
                    self.position = position;
                    return Some(value);
                }
            }
            None
        }
    }

    /// Whether two keys are one, where that can be told of ints and texts.
    ///
    /// # Safety
    ///
    /// As for `value`.
    #[inline]
    unsafe fn same(&mut self, found: Object, wanted: Object) -> bool {
        if found == wanted || self.equal == Some([found, wanted]) {
            return true;
        }
        // SAFETY: the objects are alive, and their types are looked at before their memory is read as those.
        unsafe {
            if ffi::PyUnicode_CheckExact(wanted) == 0 {
                return same_int(found, wanted);
            }
            if ffi::PyUnicode_CheckExact(found) == 0 || ffi::PyUnicode_Compare(found, wanted) != 0 {
                return false;
            }
        }
        self.equal = Some([found, wanted]);
        true
    }
}

/// Whether two objects are exact ints of one value.
///
/// # Safety
///
/// The objects are alive.
#[inline]
unsafe fn same_int(a: Object, b: Object) -> bool {
    // SAFETY: the objects are alive, and their types are looked at before they are read as ints.
    unsafe {
        let exact = |object| ffi::Py_TYPE(object) == &raw mut ffi::PyLong_Type;
        exact(a) && exact(b) && int(a).is_some_and(|value| int(b) == Some(value))
    }
}

/// The next key and value of a dict, from any position on. Runs no Python code.
///
/// # Safety
///
/// The object is a live dict.
#[inline]
unsafe fn entry(dict: Object, position: &mut isize) -> Option<[Object; 2]> {
    #[cfg(not(Py_3_12))]
    // SAFETY: the caller's promise; a table that is not split has keys and values in its entries, as many as it
    // says. Without the call this is a third of the time.
    unsafe {
        let keys = (*dict.cast::<ffi::PyDictObject>()).ma_keys.cast::<Keys>();
        if (*keys).kind != Keys::SPLIT {
            let at = usize::try_from(*position).ok().filter(|&at| at < (*keys).entries as usize)?;
            let [key, value] = if (*keys).kind == Keys::GENERAL {
                let [_, key, value] = *Keys::entries::<[Object; 3]>(keys).add(at);
                [key, value]
            } else {
                *Keys::entries::<[Object; 2]>(keys).add(at)
            };
            if !value.is_null() {
                *position += 1;
                return Some([key, value]);
            }
        }
    }
    let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the caller's promise; any position is allowed.
    let found = unsafe { ffi::PyDict_Next(dict, position, &raw mut key, &raw mut value) };
    (found != 0).then_some([key, value])
}

/// What a dict or an object has by a name.
///
/// # Safety
///
/// The objects are alive.
#[inline]
unsafe fn named(
    object: Object,
    name: Object,
    attribute: Option<&Attribute<'_>>,
    hint: &mut Hint,
) -> Option<Object> {
    // SAFETY: the objects are alive. An object of the class has what the place says; what is not set is null.
    unsafe {
        let Some(attribute) = attribute else { return hint.value(object, name) };
        if ffi::Py_TYPE(object).cast() != attribute.class.as_ptr() {
            return None;
        }
        let found = match attribute.place {
            Place::Slot(offset) => *object.byte_offset(offset).cast::<Object>(),
            place => return in_dict(object, name, place, hint),
        };
        (!found.is_null()).then_some(found)
    }
}

/// What an object of CPython 3.11 has by a name in its values, or in its dict, which are before it.
///
/// # Safety
///
/// The objects are alive, and the first is of a class whose flags say that it has these.
unsafe fn in_dict(object: Object, name: Object, place: Place, hint: &mut Hint) -> Option<Object> {
    // SAFETY: the caller's promise: two pointers before the object's header for the collector.
    unsafe {
        let before = object.cast::<*mut Object>();
        let values = *before.sub(4);
        if let (false, Place::Value(at)) = (values.is_null(), place) {
            let found = *values.add(at);
            return (!found.is_null()).then_some(found);
        }
        let dict = *before.cast::<Object>().sub(3);
        if dict.is_null() { None } else { hint.value(dict, name) }
    }
}
