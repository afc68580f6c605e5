<?php

namespace App\Models;

class PhoneNumber extends CompanyRecord
{
}
